# SPDX-License-Identifier: Apache-2.0
"""The comparison of runs with and without replay: what is run, and what is said of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import replay

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "sim.toml"


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the runs that were started; each leaves a summary, and fails for seed 2 with replay."""
    names: list[str] = []

    def run(command: list[str], *, env: dict[str, str], **_: Any) -> None:
        name, runs = command[command.index("--name") + 1], Path(env["RECIPE_RUNS"])
        assert f'[train]\nrouting_replay = "{name.partition("_")[0]}"' in Path(command[4]).read_text(encoding="utf-8")
        names.append(name)
        (runs / name).mkdir()
        figures = dict.fromkeys(replay.FIGURES, 0.5) | {"rollout_actor_kl_abs_max": 1e-4}
        if name.startswith("off"):
            figures |= dict.fromkeys(("routing_replayed_min", "routing_flips_max"))
        found = {"status": "failed" if name == "rollout_seed2" else "finished", "steps": 7, **figures}
        (runs / name / "summary.json").write_text(json.dumps(found), encoding="utf-8")

    monkeypatch.setattr(subprocess, "run", run)
    return names


def compared(monkeypatch: pytest.MonkeyPatch, runs: Path, seeds: str) -> int:
    monkeypatch.setattr(sys, "argv", ["replay.py", "--runs", str(runs), "--seeds", seeds, "--steps", "7"])
    return replay.main()


def test_runs_that_are_there_are_not_made_again(
    tmp_path: Path, launched: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compared(monkeypatch, tmp_path, "1") == 0
    assert launched == ["off_seed1", "rollout_seed1"]
    assert "| 1 | off | 0.50000 | 1.0e-04 |  |  | 0.50000 | 0.50000 |" in capsys.readouterr().out
    assert compared(monkeypatch, tmp_path, "1,3") == 0
    assert launched[2:] == ["off_seed3", "rollout_seed3"]


def test_a_run_that_fails_shows(tmp_path: Path, launched: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert compared(monkeypatch, tmp_path, "2") == 1


def test_a_run_files_own_key_gives_way() -> None:
    text = CONFIG.read_text(encoding="utf-8")
    once = replay.with_replay(text, "rollout")
    assert replay.with_replay(once, "off") == replay.with_replay(text, "off")
    assert once.count("routing_replay") == text.count("routing_replay") + 1
