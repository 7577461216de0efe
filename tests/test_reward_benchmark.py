# SPDX-License-Identifier: Apache-2.0
"""The benchmarks of the reward run, tier 3 with the real math-verify; what they measure in seconds is not judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MEASURED = ("seconds_8192_one_core", "seconds_8192_one_process", "hostile_batch_ratio", "worst_answer_ms")


def test_the_benchmark_prints_its_figures() -> None:
    data = REPOSITORY / "data" / "deepscaler_sample.json"
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(REPOSITORY / "benchmarks" / "reward.py"), "--json", "--repeats", "1",
         "--agreement", "--data", str(data)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["answers"] == 8192
    assert min(figures[name] for name in MEASURED) > 0
    # -S hides the packages of the environment, other graders among them.
    for name in ("speedup_vs_mathruler", "speedup_vs_math_verify", "agreement_with_mathruler"):
        assert figures[name] is None


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
