# SPDX-License-Identifier: Apache-2.0
"""What torch says of the dies of this machine: of simulated ones it is exact."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.checks.facts.dies import DieFacts, ask
from recipe.runfile.schema import CUDA, GIB, NPU

REPO = Path(__file__).resolve().parents[4]


def test_the_dies_have_what_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPU_SIM_DEVICES", "2")
    monkeypatch.setenv("NPU_SIM_HBM", str(int(61.27 * GIB)))
    assert ask(NPU) == DieFacts((int(61.27 * GIB),) * 2, name="")


def test_a_machine_without_such_dies_says_so() -> None:
    assert ask(CUDA).problem == "it sees none"


def test_no_answer_in_time_is_a_reason() -> None:
    assert ask(NPU, deadline_s=0.01).problem == "no answer within 0 s"


def test_preflight_of_a_node_refuses_a_plan_above_its_dies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The command on a machine whose dies, simulated, are those of an A2, with a run file for the A3."""
    monkeypatch.setenv("NPU_SIM_DEVICES", "1")
    monkeypatch.setenv("NPU_SIM_HBM", str(int(60.95 * GIB)))
    text = (REPO / "configs/a3_256die.toml").read_text(encoding="utf-8")
    found = {}
    for hardware in ("a3_128", "a2_64"):
        file = tmp_path / f"{hardware}.toml"
        nodes, dies = (16, 16) if hardware == "a3_128" else (32, 8)
        file.write_text(
            text.replace('hardware = "a3_128"', f'hardware = "{hardware}"')
            .replace("\nnodes = 16\n", f"\nnodes = {nodes}\n")
            .replace("\ndies_per_node = 16\n", f"\ndies_per_node = {dies}\n"),
            encoding="utf-8",
        )
        done = subprocess.run(
            [sys.executable, "-m", "recipe", "preflight", str(file), "--node", "--no-cluster", "--json"],
            cwd=REPO, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        report = json.loads(done.stdout)
        found[hardware] = [finding["found"] for finding in report["findings"] if finding["id"] == "N018"]
        assert ("N018" in report["passed"]) == (hardware == "a2_64")
    assert found == {"a3_128": ["planned for dies of 61.3 GiB"], "a2_64": []}
