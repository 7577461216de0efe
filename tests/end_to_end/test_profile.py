# SPDX-License-Identifier: Apache-2.0
"""A run of which one step is recorded: a trace that opens, with the phases of the step and what ran in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.test_run import check_finished_run, launch, run_file

pytestmark = pytest.mark.slow
PHASES = ("generate_sequences", "compute_ref_log_prob", "update_actor")


def test_the_recorded_step_has_its_phases_with_operators_and_collectives(tmp_path: Path) -> None:
    path = run_file(tmp_path, "sim.toml")
    text = path.read_text(encoding="utf-8").replace("[model]", "[profile]\nsteps = [2]\nranks = [1]\n\n[model]")
    path.write_text(text, encoding="utf-8")
    check_finished_run(tmp_path / "run", launch(tmp_path, path, "run", 2), dies=2)

    (file,) = (tmp_path / "run" / "profile").glob("**/trace_view.json")
    assert file.relative_to(tmp_path / "run" / "profile").parts[:2] == ("2", "e2e")
    events = [event for event in json.loads(file.read_text())["traceEvents"] if event.get("ph") == "X"]
    phases = {name: within(events, name) for name in PHASES}
    assert all("aten::mm" in ran for ran in phases.values())
    assert {"npu::atb.npu_multi_head_latent_attention", "c10d::alltoall_"} <= phases["generate_sequences"]
    assert "c10d::alltoall_base_" in phases["compute_ref_log_prob"]
    assert not any("Backward" in name for name in phases["compute_ref_log_prob"])
    assert any("Backward" in name for name in phases["update_actor"])


def within(events: list[dict[str, Any]], phase: str) -> set[str]:
    """The names of what ran while a phase did, for the first time: validation generates, too."""
    mark = min((event for event in events if event["name"] == phase), key=lambda event: event["ts"])
    return {event["name"] for event in events if mark["ts"] <= event["ts"] <= mark["ts"] + mark["dur"]}
