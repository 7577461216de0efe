# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs and says whether the files are the same; its seconds are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_benchmark_of_a_few_problems() -> None:
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "data.py"), "--problems", "300", "--json"],
        capture_output=True, text=True, cwd=REPO, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["problems"] == 300 and figures["identical"] is True
    assert figures["seconds"] > 0 and figures["megabytes_rss"] > 20
