# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/switch.py` counts on small dies; its seconds are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
# What ranks tell each other before anything is sent (verl_patches/utils/routes/transport.py, `agree`); not in a
# rehearsal, where there is nobody to disagree.
AGREED_BYTES = 16


@pytest.mark.slow
def test_both_ways_of_two_dies_and_of_a_run_file() -> None:
    arguments = ["--dies", "2", "--syncs", "1", "--rehearse", str(REPO / "configs" / "sim_4die.toml"), "--json"]
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "switch.py"), *arguments],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = [(row, 2 * AGREED_BYTES) for row in report["dies"]["2"]["layouts"].values()]
    rows += [(row, 0) for row in report["sim_4die"]["stages"].values()]
    assert len(rows) == 4
    for row, agreed in rows:
        assert row["received_bytes"] - row["minimum_bytes"] == agreed, row
        assert row["stock_bytes"] > row["received_bytes"]
        assert row["calls_stock"] > 10 * row.get("calls_ours", row.get("calls"))
