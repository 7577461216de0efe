# SPDX-License-Identifier: Apache-2.0
"""Runs in which the actor's routers take the experts that the sampler chose: by count, all of them, at every step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_patches.core.transformer.moe.replay import FLIPS, OWN, REPLAYED
from recipe.recorder import read_events
from recipe.report.metrics import KL_KEYS, PEARSON, read_steps
from tests.end_to_end.test_mismatch import mismatch
from tests.end_to_end.test_run import check_finished_run, launch, run_file

pytestmark = pytest.mark.slow
STEPS = 2


def replaying_run(runs: Path, name: str) -> Path:
    path = run_file(runs, name)
    text = path.read_text(encoding="utf-8").replace("[train]", '[train]\nrouting_replay = "rollout"')
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["sim.toml", "sim_4die.toml"])
def test_every_choice_of_the_sampler_is_the_actors(tmp_path: Path, name: str) -> None:
    """With four dies: tensor-parallel engines, and an actor of two stages."""
    launcher = launch(tmp_path, replaying_run(tmp_path, name), "run", STEPS)
    check_finished_run(tmp_path / "run", launcher, dies=4 if "4die" in name else 2)
    steps = [step for step in read_steps(tmp_path / "run" / "metrics.jsonl") if step.trained]
    assert len(steps) == STEPS
    for step in steps:
        assert step.values[REPLAYED] == 1.0
        # Ties are what it is for; the last token of an answer, and nothing else, has no choice.
        assert 0 < step.values[FLIPS] < 0.1
        assert 0 < step.values[OWN] < 0.2
        assert step.values[PEARSON] >= 0.999
        assert abs(step.get(*KL_KEYS) or 0.0) <= 1e-3
    summary = json.loads((tmp_path / "run" / "summary.json").read_text(encoding="utf-8"))
    assert summary["routing_replayed_min"] == 1.0

    if name == "sim.toml":
        done = mismatch(tmp_path / "run", "--step", str(STEPS), "--json")
        assert done.returncode == 0, done.stderr
        (found,) = json.loads(done.stdout)
        assert found["not_replayed"] == 0
        # An answer's last token is not computed by the rollout, and not compared.
        assert [layer["flips"] for layer in found["layers"]] == [None, 0.0, 0.0, 0.0]


def test_choices_of_answers_that_change_engines_are_followed_at_a_high_temperature(tmp_path: Path) -> None:
    """At it answers are long enough for moving them to pay, and rollout and actor agree only if both divide by it."""
    path = replaying_run(tmp_path, "sim_balance.toml")
    text = path.read_text(encoding="utf-8")
    for old, new in (("temperature = 1.0", "temperature = 3.0"), ("response_tokens = 24", "response_tokens = 200")):
        assert old in text
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")
    launcher = launch(tmp_path, path, "run", STEPS)
    check_finished_run(tmp_path / "run", launcher, dies=4)
    assert sum(event.get("moved", 0) for event in read_events(tmp_path / "run")) > 0
    steps = [step for step in read_steps(tmp_path / "run" / "metrics.jsonl") if step.trained]
    assert len(steps) == STEPS
    for step in steps:
        assert step.values[REPLAYED] == 1.0
        assert step.values[PEARSON] >= 0.999
        assert abs(step.values[KL_KEYS[0]]) <= 1e-3
