# SPDX-License-Identifier: Apache-2.0
"""The committed sample is what the generator makes, and its answers are right."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from pathlib import Path

from recipe.data.rows import read_rows
from recipe.data.samples import main, sample_problems
from verl_patches.utils.reward_score.r1_zero import same_answer

SAMPLE = Path(__file__).parents[3] / "data" / "deepscaler_sample.json"


def test_committed_sample_is_the_generators_output() -> None:
    assert json.loads(SAMPLE.read_text(encoding="utf-8")) == sample_problems(240, 0)


def test_sample_is_usable_whole() -> None:
    rows, dropped = read_rows(SAMPLE)
    assert len(rows) == 240 and dropped.total == 0


def test_sums_and_equations_check_out() -> None:
    checked = 0
    for record in sample_problems(240, 3):
        if added := re.fullmatch(r"What is (\d+) \+ (\d+) \+ (\d+)\?", record["problem"]):
            assert int(record["answer"]) == sum(map(int, added.groups()))
        elif line := re.fullmatch(r"Solve \$(\d+)x \+ (\d+) = (-?\d+)\$ for \$x\$\.", record["problem"]):
            factor, offset, right = map(int, line.groups())
            assert factor * int(record["answer"]) + offset == right
        elif parts := re.fullmatch(r"Compute \$\\frac{(\d+)}{(\d+)} \+ \\frac{(\d+)}{(\d+)}\$ .*", record["problem"]):
            a, b, c, d = map(int, parts.groups())
            assert same_answer(record["answer"], str(Fraction(a, b) + Fraction(c, d)))
        else:
            continue
        checked += 1
    assert checked == 120


def test_too_many_problems_is_an_error(tmp_path: Path, monkeypatch, capsys) -> None:
    from recipe.data import samples

    monkeypatch.setattr(samples, "KINDS", (lambda rng: samples._record(str(rng.randint(0, 3)), 1, ""),))
    assert main(["--count", "9", "--out", str(tmp_path / "x.json")]) == 2
    assert "found only 4 different problems" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()
