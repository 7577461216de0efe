# SPDX-License-Identifier: Apache-2.0
"""The committed sample is what the generator makes, and its answers are right."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest

from recipe.data.rows import read_rows
from recipe.data.samples import KINDS, main, sample_problems

SAMPLE = Path(__file__).parents[3] / "data" / "deepscaler_sample.json"
NUMBER = r"(-?[\d.]+)"


def test_committed_sample_is_the_generators_output() -> None:
    assert json.loads(SAMPLE.read_text(encoding="utf-8")) == sample_problems(240, 0)


def test_sample_is_usable_whole() -> None:
    rows, dropped = read_rows(SAMPLE)
    assert len(rows) == 240 and dropped.total == 0 and all(row.solution for row in rows)


def fraction(text: str) -> Fraction:
    match = re.fullmatch(r"(-?)\\frac{(\d+)}{(\d+)}", text)
    return Fraction(text) if not match else Fraction(int(match[1] + match[2]), int(match[3]))


def quadratic(text: str) -> tuple[int, int]:
    """(b, c) of ``x^2 + b x + c``."""
    match = re.fullmatch(r"x\^2(?: ([+-]) (\d*)x)?(?: ([+-]) (\d+))?", text)
    assert match, text
    middle = int(match[1] + (match[2] or "1")) if match[1] else 0
    return middle, int(match[3] + match[4]) if match[3] else 0


def right(problem: str, answer: str) -> tuple[str, bool]:
    """The kind of a problem and whether the answer is right, worked out from its text alone."""
    digits = [Fraction(n.rstrip(".")) for n in re.findall(r"-?\d+(?:\.\d+)?", problem.replace(" - ", " -"))]
    if " + " in problem and problem.startswith("What is"):
        return "sum", Fraction(answer) == sum(digits)
    if problem.startswith("Ana"):
        pieces, price, paid = digits
        return "shop", Fraction(answer) == paid - pieces * price >= 0
    if "\\%" in problem:
        return "percent", fraction(answer) == digits[0] * digits[1] / 100
    if problem.startswith("Compute"):
        a, b, c, d = digits
        return "fractions", fraction(answer) == a / b + c / d
    if problem.startswith("A train"):
        hours = (1 if "one hour" in problem else digits[1]) + Fraction("half" in problem) / 2
        return "journey", fraction(answer) == digits[0] * hours
    if problem.startswith("Solve"):
        factor, offset, value = digits
        return "equation", factor * Fraction(answer) + offset == value
    if problem.startswith("A bottle"):
        return "decimal", Fraction(answer) == digits[0] * digits[1] and answer[-3] == "."
    if "\\times" in problem:
        return "product", answer == f"{int(digits[0] * digits[1]):,}"
    if "$x^2" in problem:
        middle, last = quadratic(re.search(r"\$(x\^2.*?)(?: \\le 0)?\$", problem)[1])  # type: ignore[index]
        low, high = (int(n) for n in re.findall(r"-?\d+", answer))
        kind, ends = ("roots", ("\\{", "\\}")) if "roots" in problem else ("interval", ("[", "]"))
        shape = answer.startswith(ends[0]) and answer.endswith(ends[1])
        return kind, shape and low < high and (-low - high, low * high) == (middle, last)
    if "midpoint" in problem:
        x, y = (fraction(part) for part in answer[1:-1].split(", "))
        a, b, c, d = digits
        return "midpoint", (2 * x, 2 * y) == (a + c, b + d)
    if problem.startswith("A circle"):
        return "circle", answer == f"{digits[0] ** 2}\\pi"
    if "diagonal" in problem:
        return "diagonal", answer == f"{digits[0]}\\sqrt{{2}}"
    if "triangle" in problem:
        return "angle", sum(digits) + Fraction(answer.removesuffix("^\\circ")) == 180
    if "divisor" in problem:
        return "gcd", int(answer) == math.gcd(int(digits[0]), int(digits[1]))
    assert problem.startswith("Expand"), problem
    return "binomial", quadratic(answer) == (digits[0] + digits[1], digits[0] * digits[1])


@pytest.mark.parametrize(("count", "seed"), [(240, 0), (8000, 3)])
def test_every_answer_is_right(count: int, seed: int) -> None:
    kinds: Counter[str] = Counter()
    for record in sample_problems(count, seed):
        kind, correct = right(record["problem"], record["answer"])
        assert correct, record
        kinds[kind] += 1
    assert len(kinds) == len(KINDS) and max(kinds.values()) - min(kinds.values()) <= 1


def test_any_number_of_different_problems_can_be_made() -> None:
    problems = [record["problem"] for record in sample_problems(20_000, 1)]
    assert len(set(problems)) == 20_000


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.json"
    assert main(["--count", "9", "--seed", "4", "--out", str(out)]) == 0
    assert json.loads(out.read_text(encoding="utf-8")) == sample_problems(9, 4)
    assert main(["--count", "9", "--out", str(tmp_path / "absent" / "x.json")]) == 2
    assert "No such file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--count", "0", "--out", str(out)])
