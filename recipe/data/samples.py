# SPDX-License-Identifier: Apache-2.0
"""Generates arithmetic problems of several kinds in the DeepScaleR schema, as in ``data/deepscaler_sample.json``.

``python -m recipe.data.samples --count N --seed S --out FILE`` makes any number (distinct ones, as many as there are).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

Record = dict[str, str]


def sample_problems(count: int, seed: int) -> list[Record]:
    """``count`` records ``{"problem", "answer", "solution"}``, no problem twice, the kinds in turn."""
    rng = random.Random(f"samples {seed}")
    records: dict[str, Record] = {}
    attempts = 0
    while len(records) < count:
        record = KINDS[len(records) % len(KINDS)](rng)
        records.setdefault(record["problem"], record)
        attempts += 1
        if attempts > 100 * count:
            raise ValueError(f"found only {len(records)} different problems; ask for fewer than {count}")
    return list(records.values())


def write_samples(path: Path, count: int, seed: int) -> None:
    """Writes the records as a JSON list, one field a line, through a temporary file."""
    temporary = path.with_name(f".{path.name}.tmp")
    text = json.dumps(sample_problems(count, seed), ensure_ascii=False, indent=0)
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)


def _sum(rng: random.Random) -> Record:
    a, b, c = (rng.randint(11, 999) for _ in range(3))
    solution = f"{a} + {b} = {a + b}, and {a + b} + {c} = {a + b + c}."
    return _record(f"What is {a} + {b} + {c}?", a + b + c, solution)


def _shop(rng: random.Random) -> Record:
    price, pieces, note = rng.randint(2, 9), rng.randint(3, 9), 100
    thing = rng.choice(("pens", "books", "lamps", "cups", "kites"))
    problem = (
        f"Ana buys {pieces} {thing} at ${price} each and pays with a ${note} note. How many dollars does she get back?"
    )
    spent = price * pieces
    return _record(
        problem, note - spent, f"She spends {pieces} * {price} = {spent}, so she gets {note} - {spent} back."
    )


def _percent(rng: random.Random) -> Record:
    share, whole = rng.choice((5, 10, 20, 25, 40, 50, 75)), 20 * rng.randint(2, 60)
    value = Fraction(share * whole, 100)
    return _record(f"What is {share}\\% of {whole}?", value, f"{share}/100 * {whole} = {_text(value)}.")


def _fractions(rng: random.Random) -> Record:
    a, c = rng.randint(1, 5), rng.randint(1, 5)
    b, d = a + rng.randint(1, 7), c + rng.randint(1, 7)
    value = Fraction(a, b) + Fraction(c, d)
    problem = f"Compute $\\frac{{{a}}}{{{b}}} + \\frac{{{c}}}{{{d}}}$ as a fraction in lowest terms."
    solution = f"Over {b * d} the numerators are {a * d} and {c * b}; their sum reduces to {_text(value)}."
    return _record(problem, value, solution)


def _journey(rng: random.Random) -> Record:
    speed, hours, half = 10 * rng.randint(3, 12), rng.randint(1, 8), rng.random() < 0.5
    time = hours + Fraction(1, 2) * half
    words = f"{hours} and a half hours" if half else f"{hours} hours" if hours > 1 else "one hour"
    distance = speed * time
    return _record(
        f"A train runs at {speed} km per hour for {words}. How many kilometres does it go?",
        distance,
        f"{speed} * {_text(time)} = {_text(distance)}.",
    )


def _equation(rng: random.Random) -> Record:
    factor, solution, offset = rng.randint(2, 12), rng.randint(-15, 15), rng.randint(1, 40)
    right = factor * solution + offset
    steps = f"{factor}x = {right} - {offset} = {right - offset}, so x = {solution}."
    return _record(f"Solve ${factor}x + {offset} = {right}$ for $x$.", solution, steps)


KINDS: tuple[Callable[[random.Random], Record], ...] = (_sum, _shop, _percent, _fractions, _journey, _equation)


def _record(problem: str, answer: int | Fraction, solution: str) -> Record:
    return {"problem": problem, "answer": _text(Fraction(answer)), "solution": solution}


def _text(value: int | Fraction) -> str:
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the generator."""
    parser = argparse.ArgumentParser(description="Generate arithmetic problems in the DeepScaleR schema.")
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        write_samples(args.out, args.count, args.seed)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.count} problems")
    return 0


if __name__ == "__main__":
    sys.exit(main())
