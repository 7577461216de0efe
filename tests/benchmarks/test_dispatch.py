# SPDX-License-Identifier: Apache-2.0
"""What `benchmarks/dispatch.py` measures on a small batch, and what it makes of it; its seconds are not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import dispatch

REPO = Path(__file__).resolve().parents[2]
INTEGER, FLOAT = 8, 4


def test_a_line_through_points_never_falls() -> None:
    assert dispatch.line({2: 1.0, 4: 2.0, 8: 4.0}, 256) == pytest.approx(128.0)
    assert dispatch.line({2: 3.0}, 256) == 3.0
    assert dispatch.line({2: 5.0, 4: 3.0}, 256) == 4.0


def test_bytes_of_the_true_size_are_those_of_every_node_that_wants_them() -> None:
    hop = dispatch.Hop(sent=1000, received=40, used=10, put=2.0, there=3.0, back=4.0)
    large = dispatch.at_true_size({2: dict.fromkeys(dispatch.HOPS, hop)}, link_gbit=8e-6)
    generated, passed = large["generate_sequences"], large["compute_log_prob"]
    assert (generated["sent_bytes"], passed["sent_bytes"]) == (1000, 1000 * dispatch.PIPELINE)
    assert (generated["returned_bytes"], passed["returned_bytes"]) == (20, 80)
    assert generated["driver_s"] == pytest.approx(2.0 + 4.0 / 40 * 20)
    assert passed["die_s"] == pytest.approx(3.0 * 2 / 32) and passed["wire_s"] == pytest.approx(8.08)


@pytest.mark.slow
def test_a_step_of_a_small_batch_over_four_dies() -> None:
    arguments = ["--dies", "4", "--prompts", "6", "--samples", "2", "--prompt", "16", "--response", "32"]
    done = subprocess.run(
        [sys.executable, str(REPO / "benchmarks" / "dispatch.py"), *arguments, "--store-gib", "1", "--json"],
        capture_output=True, text=True, timeout=420, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for way in ("torch", "numpy"):
        hops = report[way]["dies"]["4"]
        answers = 12 * (16 + 32 + 3 * 48) * INTEGER
        # The objects of a row come on top: some hundred bytes each.
        assert answers < hops["generate_sequences"]["used"] < answers + 12 * 1000
        # Two dies of an engine give the same answers, and two stages the same log-probs.
        assert hops["generate_sequences"]["received"] == pytest.approx(2 * hops["generate_sequences"]["used"], rel=0.01)
        log_probs = hops["compute_log_prob"]
        assert 2 * 12 * 32 * FLOAT <= log_probs["used"] < 2 * 12 * 32 * FLOAT + 1000
        assert log_probs["received"] == pytest.approx(2 * log_probs["used"], rel=0.05)
        assert hops["update_actor"]["sent"] > log_probs["sent"] > answers
        assert all(hop[part] >= 0 for hop in hops.values() for part in ("cut", "put", "join", "around"))
        assert report[way]["share_of_step"] == pytest.approx(report[way]["at_256_s"] / 1044.8)
