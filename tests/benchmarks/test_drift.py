# SPDX-License-Identifier: Apache-2.0
"""The benchmarks that decide something are run; what they measure in seconds is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def test_every_mutation_of_every_target_is_refused():
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "drift.py"), "--json"],
        capture_output=True, text=True, timeout=240, check=False, cwd=REPO,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) >= 20
    for patch, row in rows.items():
        assert row["renamed"] == row["body"] == "refused" and row["reformatted"] == "accepted", patch
        assert row["signature"] in ("refused", "-"), patch
    assert sum(row["signature"] == "refused" for row in rows.values()) >= 20
