# SPDX-License-Identifier: Apache-2.0
"""Generates arithmetic problems of several kinds in the DeepScaleR schema, as in ``data/deepscaler_sample.json``.

``python -m recipe.data.samples --count N --seed S --out FILE`` makes any number of distinct ones: a kind that has
drawn a problem before draws from twice the range from then on.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

Record = dict[str, str]


def sample_problems(count: int, seed: int) -> list[Record]:
    """``count`` records ``{"problem", "answer", "solution"}``, no problem twice, the kinds in turn."""
    rng = random.Random(f"samples {seed}")
    sizes = [1] * len(KINDS)
    records: dict[str, Record] = {}
    while len(records) < count:
        kind = len(records) % len(KINDS)
        record = KINDS[kind](rng, sizes[kind])
        if record["problem"] in records:
            sizes[kind] *= 2
        else:
            records[record["problem"]] = record
    return list(records.values())


def write_samples(path: Path, count: int, seed: int) -> None:
    """Writes the records as a JSON list, one field a line, through a temporary file."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        text = json.dumps(sample_problems(count, seed), ensure_ascii=False, indent=0)
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


# Each kind takes the generator and the factor by which its ranges are wider than at first.


def _sum(rng: random.Random, size: int) -> Record:
    a, b, c = (rng.randint(11, 999 * size) for _ in range(3))
    solution = f"{a} + {b} = {a + b}, and {a + b} + {c} = {a + b + c}."
    return _record(f"What is {a} + {b} + {c}?", a + b + c, solution)


def _shop(rng: random.Random, size: int) -> Record:
    price, pieces = rng.randint(2, 9 * size), rng.randint(3, 9 * size)
    spent = price * pieces
    note = 100 * -(-spent // 100)
    goods = rng.choice(("pens", "books", "lamps", "cups", "kites"))
    problem = f"Ana buys {pieces} {goods} at ${price} each and pays ${note}. How many dollars does she get back?"
    steps = f"She spends {pieces} * {price} = {spent}, so she gets {note} - {spent} = {note - spent} back."
    return _record(problem, note - spent, steps)


def _percent(rng: random.Random, size: int) -> Record:
    share, total = rng.choice((5, 10, 20, 25, 40, 50, 75)), 20 * rng.randint(2, 60 * size)
    value = Fraction(share * total, 100)
    return _record(f"What is {share}\\% of {total}?", value, f"{share}/100 * {total} = {_text(value)}.")


def _fractions(rng: random.Random, size: int) -> Record:
    a, c = rng.randint(1, 5 * size), rng.randint(1, 5 * size)
    b, d = a + rng.randint(1, 7 * size), c + rng.randint(1, 7 * size)
    value = Fraction(a, b) + Fraction(c, d)
    problem = f"Compute $\\frac{{{a}}}{{{b}}} + \\frac{{{c}}}{{{d}}}$ as a fraction in lowest terms."
    solution = f"Over {b * d} the numerators are {a * d} and {c * b}; their sum reduces to {_text(value)}."
    return _record(problem, value, solution)


def _journey(rng: random.Random, size: int) -> Record:
    speed, hours, half = 10 * rng.randint(3, 12 * size), rng.randint(1, 8 * size), rng.random() < 0.5
    time = hours + Fraction(1, 2) * half
    words = f"{hours} and a half hours" if half else f"{hours} hours" if hours > 1 else "one hour"
    distance = speed * time
    problem = f"A train runs at {speed} km per hour for {words}. How many kilometres does it go?"
    return _record(problem, distance, f"{speed} * {_text(time)} = {_text(distance)}.")


def _equation(rng: random.Random, size: int) -> Record:
    factor, solution, offset = rng.randint(2, 12 * size), rng.randint(-15 * size, 15 * size), rng.randint(1, 40 * size)
    right = factor * solution + offset
    steps = f"{factor}x = {right} - {offset} = {right - offset}, so x = {solution}."
    return _record(f"Solve ${factor}x + {offset} = {right}$ for $x$.", solution, steps)


def _decimal(rng: random.Random, size: int) -> Record:
    price, pieces = rng.randint(101, 999 * size), rng.randint(2, 9)
    cents = price * pieces
    problem = f"A bottle costs {_money(price)} euros. What do {pieces} bottles cost, in euros, with two decimals?"
    return _written(problem, _money(cents), f"{pieces} * {_money(price)} = {_money(cents)}.")


def _product(rng: random.Random, size: int) -> Record:
    a, b = rng.randint(101, 999 * size), rng.randint(11, 99 * size)
    tens = b // 10 * 10
    steps = f"{a} * {tens} = {a * tens} and {a} * {b - tens} = {a * (b - tens)}; together {a * b}."
    return _written(f"What is ${a} \\times {b}$? Separate the thousands with commas.", f"{a * b:,}", steps)


def _roots(rng: random.Random, size: int) -> Record:
    low = rng.randint(-9 * size, 8 * size)
    high = rng.randint(low + 1, 9 * size)
    problem = (
        f"What are the roots of ${_quadratic(-low - high, low * high)}$? Give them as a set, the smaller one first."
    )
    steps = f"The roots have the sum {low + high} and the product {low * high}: they are {low} and {high}."
    return _written(problem, f"\\{{{low}, {high}\\}}", steps)


def _interval(rng: random.Random, size: int) -> Record:
    low = rng.randint(-9 * size, 8 * size)
    high = rng.randint(low + 1, 9 * size)
    problem = f"For which real $x$ is ${_quadratic(-low - high, low * high)} \\le 0$? Answer with an interval."
    steps = f"It is zero at {low} and {high} and opens upwards, so it is not positive between them."
    return _written(problem, f"[{low}, {high}]", steps)


def _midpoint(rng: random.Random, size: int) -> Record:
    a, b, c, d = (rng.randint(-20 * size, 20 * size) for _ in range(4))
    x, y = Fraction(a + c, 2), Fraction(b + d, 2)
    problem = f"What is the midpoint of $({a}, {b})$ and $({c}, {d})$? Give the point as an ordered pair."
    steps = f"Half of {a + c} is {_text(x)}, half of {b + d} is {_text(y)}."
    return _written(problem, f"({_text(x)}, {_text(y)})", steps)


def _circle(rng: random.Random, size: int) -> Record:
    radius = rng.randint(2, 40 * size)
    problem = f"A circle has a radius of {radius} cm. What is its area in square centimetres, in terms of $\\pi$?"
    return _written(problem, f"{radius**2}\\pi", f"The area is \\pi * {radius}^2 = {radius**2}\\pi.")


def _diagonal(rng: random.Random, size: int) -> Record:
    side = rng.randint(2, 60 * size)
    problem = f"What is the diagonal of a square with sides of {side}? Simplify the root."
    return _written(problem, f"{side}\\sqrt{{2}}", f"\\sqrt{{{side}^2 + {side}^2}} = {side}\\sqrt{{2}}.")


def _angle(rng: random.Random, size: int) -> Record:
    # Angles stay below 180 degrees; with the size grows the number of their decimals.
    parts = 10 ** len(str(size)) if size > 1 else 1
    a, b = rng.randint(20 * parts, 80 * parts), rng.randint(20 * parts, 80 * parts)
    degrees = [_plain_decimal(Fraction(value, parts)) for value in (a, b, 180 * parts - a - b)]
    problem = f"Two angles of a triangle are ${degrees[0]}^\\circ$ and ${degrees[1]}^\\circ$. How large is the third?"
    return _written(problem, f"{degrees[2]}^\\circ", f"180 - {degrees[0]} - {degrees[1]} = {degrees[2]}.")


def _gcd(rng: random.Random, size: int) -> Record:
    common, a, b = (rng.randint(2, 30 * size) for _ in range(3))
    x, y = common * a, common * b
    steps, dividend, divisor = [], x, y
    while divisor:
        steps.append(f"{dividend} leaves {dividend % divisor} by {divisor}")
        dividend, divisor = divisor, dividend % divisor
    problem = f"What is the greatest common divisor of {x} and {y}?"
    return _record(problem, math.gcd(x, y), "; ".join(steps) + f". So it is {dividend}.")


def _binomial(rng: random.Random, size: int) -> Record:
    a, b = rng.randint(1, 12 * size), rng.randint(1, 12 * size)
    expanded = _quadratic(a + b, a * b)
    steps = f"The middle term is ({a} + {b})x, the last one {a} * {b}: {expanded}."
    return _written(f"Expand $(x + {a})(x + {b})$.", expanded, steps)


KINDS: tuple[Callable[[random.Random, int], Record], ...] = (
    _sum, _shop, _percent, _fractions, _journey, _equation, _decimal, _product,
    _roots, _interval, _midpoint, _circle, _diagonal, _angle, _gcd, _binomial,
)  # fmt: skip


def _record(problem: str, answer: int | Fraction, solution: str) -> Record:
    return _written(problem, _text(answer), solution)


def _written(problem: str, answer: str, solution: str) -> Record:
    return {"problem": problem, "answer": answer, "solution": solution}


def _text(value: int | Fraction) -> str:
    value = Fraction(value)
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"


def _plain_decimal(value: Fraction) -> str:
    """``value``, a fraction with a finite decimal, as that decimal without trailing zeros."""
    # A power of ten is divisible by the denominator at the latest when it has as many digits as that has bits.
    places = value.denominator.bit_length()
    scaled = int(value * 10**places)
    text = f"{scaled // 10**places}.{scaled % 10**places:0{places}}"
    return text.rstrip("0").rstrip(".")


def _quadratic(middle: int, last: int) -> str:
    """``x^2 + middle x + last`` as it is written by hand."""
    text = "x^2"
    for factor, power in ((middle, "x"), (last, "")):
        if factor:
            size = "" if power and abs(factor) == 1 else str(abs(factor))
            text += f" {'+' if factor > 0 else '-'} {size}{power}"
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of the generator."""
    parser = argparse.ArgumentParser(
        prog="python -m recipe.data.samples", description="Generate arithmetic problems in the DeepScaleR schema."
    )
    parser.add_argument("--count", type=int, default=240, help="how many, all different (default 240)")
    parser.add_argument("--seed", type=int, default=0, help="equal seeds give equal files (default 0)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="a JSON list")
    args = parser.parse_args(argv)
    if args.count < 1:
        parser.error(f"--count must be at least 1, found {args.count}")
    try:
        write_samples(args.out, args.count, args.seed)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{args.out}: {args.count} problems")
    return 0


if __name__ == "__main__":
    sys.exit(main())
