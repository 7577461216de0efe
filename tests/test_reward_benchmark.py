# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the reward runs without other graders; what it measures in seconds is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


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
    assert min(figures[name] for name in ("seconds_8192_one_core", "hostile_batch_ratio", "worst_answer_ms")) > 0
    # -S hides the packages of the environment, other graders among them.
    for name in ("speedup_vs_mathruler", "speedup_vs_math_verify", "agreement_with_mathruler"):
        assert figures[name] is None
