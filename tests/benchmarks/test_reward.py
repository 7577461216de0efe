# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of the reward run, tier 3 with the real math-verify; what they measure in seconds is not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import reward_adversary

REPOSITORY = Path(__file__).resolve().parents[2]
MEASURED = ("seconds_8192_one_core", "seconds_8192_one_process", "hostile_batch_ratio", "worst_answer_ms")


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    # -S hides the packages of the environment, other graders among them.
    command = [sys.executable, "-I", "-S", str(REPOSITORY / "benchmarks" / "reward.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_the_benchmark_prints_its_figures(tmp_path: Path) -> None:
    truths = tmp_path / "truths.jsonl"
    truths.write_text('{"answer": "\\\\frac12"}\n{"answer": "\\\\int x"}\n{"final_answer": ["1", "2"]}\n', "utf-8")
    done = benchmark(
        "--json", "--repeats", "1", "--peers", "none", "--adversary", "300", "--truths", f"deepscaler={truths}"
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["answers"] == 8192
    assert min(figures[name] for name in MEASURED) > 0
    assert figures["adversary_pairs"] == 300 and figures["adversary_right_refused"] == 0
    assert figures["readable_deepscaler"] == 0.75 and figures["unread_deepscaler"] == ["\\int x"]
    assert not [name for name, figure in figures.items() if figure is None]


def test_a_peer_that_is_missing_is_an_error_that_says_what_to_type() -> None:
    for arguments in (["--json"], ["--peers", "none", "--agreement"]):
        done = benchmark(*arguments)
        assert done.returncode == 1 and "-m pip install mathruler" in done.stderr
    assert "no NAME=FILE" in benchmark("--peers", "none", "--truths", "deepscaler=/nowhere").stderr


NUMERIC = [
    {"problem": "What is 604 + 452 + 875?", "answer": "1931"},
    {"problem": "Half of $\\\\frac{3}{2}$ is what?", "answer": "0.75"},
]


def test_the_adversary_is_paid_for_nothing() -> None:
    outcome = reward_adversary.run(3000, NUMERIC, seed=1)
    assert (outcome.paid_wrongly, outcome.right_refused) == (0, 0), outcome.paid
    assert outcome.pairs == 3000 and len(outcome.by_rule) > 20 and outcome.happen_to_be_right > 0
    assert len(reward_adversary.UNDEFINED) >= 40


def test_the_adversary_finds_a_reward_that_pays_for_anything_or_for_nothing() -> None:
    assert reward_adversary.run(100, NUMERIC, lambda case: True).paid_wrongly == 100
    assert reward_adversary.run(100, NUMERIC, lambda case: False).right_refused == 10


def test_an_answer_that_happens_to_be_right_is_right() -> None:
    """The exact keys and the grader, which have nothing in common, agree on what is equal."""
    lucky = [case for case in reward_adversary.cases(3000, NUMERIC, 2) if case.rule == "happens to be right"]
    refused = [case for case in lucky if not reward_adversary.is_paid(case)]
    assert len(lucky) > 50 and refused == []


@pytest.mark.slow
def test_tier_3_with_the_real_math_verify(tmp_path: Path) -> None:
    """Needs a package index: the graders are installed into an environment of their own."""
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "graders")], check=True, timeout=240)
    python = tmp_path / "graders" / "bin" / "python"
    install = [python, "-m", "pip", "install", "-q", "-r", REPOSITORY / "requirements-tier3.txt"]
    subprocess.run(install, check=True, timeout=600)
    command = [python, REPOSITORY / "benchmarks" / "tier3.py", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["unexpected"] == 0 and found["code_was_run"] is False
    assert {row["tier_3"] for row in found["rows"]} >= {"correct", "wrong", "unparseable", "timeout"}
