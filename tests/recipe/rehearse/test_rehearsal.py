# SPDX-License-Identifier: Apache-2.0
"""The whole command on the tiny model: verl's own workers, in processes of their own, from the run file alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from recipe.runfile.paths import REPO

SIM4 = (REPO / "configs/sim_4die.toml").read_text()


def rehearse(run_file: str, directory: Path, *options: str) -> tuple[dict[str, Any], str]:
    """The JSON of a rehearsal of a run file's text, and its page."""
    file = directory / "run.toml"
    file.write_text(run_file)
    command = [sys.executable, "-m", "recipe", "rehearse", str(file), "--out", str(directory / "out"), *options]
    outputs = []
    for last in (["--json"], []):  # the second one finds all that it needs
        done = subprocess.run([*command, *last], cwd=REPO, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        outputs.append(done.stdout)
    return json.loads(outputs[0]), outputs[1]


def test_two_stages_are_counted_and_set_beside_the_plan(tmp_path: Path) -> None:
    vanilla = SIM4.replace('"npu_on_policy"', '"vanilla"')
    made, page = rehearse(vanilla, tmp_path, "--steps", "2", "--jobs", "2")
    assert [stage["stage"] for stage in made["stages"]] == [0, 1] and made["oom"] is None
    for stage in made["stages"]:
        assert set(stage["phases"]) >= {"build", "log_prob", "ref", "update"}
        for phase in stage["phases"].values():
            assert phase["peak_bytes"] > 0 and phase["operators"] > 0 and sum(phase["contents"].values()) > 0
            assert abs(sum(phase["contents"].values()) - phase["peak_bytes"]) <= 0.01 * phase["peak_bytes"]
    # When the switch ends the rollout's weights stand there, and the actor's have left.
    switch = made["stages"][0]["phases"]["switch"]
    came = switch["resident_bytes"] - made["stages"][0]["phases"]["log_prob"]["resident_bytes"]
    assert came < switch["contents"]["rollout weights"] + 0.5 * switch["contents"]["actor weights"]
    last = made["stages"][1]["phases"]
    assert last["update"]["contents"]["gradients"] == 2 * last["update"]["contents"]["actor weights"]
    assert last["log_prob"]["expert_load"] == 1.0
    assert {name for name in made["traffic"] if name.startswith("expert")} >= {
        "expert all-to-all, log_prob", "expert all-to-all, ref", "expert all-to-all, update",
    }  # fmt: skip
    for name, pair in made["traffic"].items():
        if name != "pipeline":  # of which the plan knows no shapes and no padding
            assert abs(pair["planned_bytes"] / pair["sent_bytes"] - 1) < 0.01, (name, pair)
    # The plan has 4% more than the first stage takes, whose single dense layer is small here, and is closer elsewhere.
    off = {
        (stage["stage"], name): abs(phase["planned_bytes"] / phase["peak_bytes"] - 1)
        for stage in made["stages"]
        for name, phase in stage["phases"].items()
        if name in ("switch", "log_prob", "ref", "update")
    }
    assert max(value for (stage, _), value in off.items() if stage == 0) < 0.05, page
    assert max(value for (stage, _), value in off.items() if stage > 0) < 0.03, page
    assert "Stage 1, die 2" in page and "more than 3%" in page


def test_what_does_not_fit_is_the_result(tmp_path: Path) -> None:
    made, page = rehearse(SIM4.replace("hbm_mib = 256", "hbm_mib = 110"), tmp_path, "--stage", "1")
    oom = made["oom"]
    assert oom is not None and (oom["stage"], oom["phase"]) == (1, "update")
    assert oom["wanted_bytes"] > oom["free_bytes"] and oom["contents"]["gradients"] > 0
    assert set(made["stages"][0]["phases"]) >= {"ref", "update"}
    assert "log_prob" not in made["stages"][0]["phases"]
    assert page.splitlines()[-1].startswith("OUT OF MEMORY: update, stage 1: ")
