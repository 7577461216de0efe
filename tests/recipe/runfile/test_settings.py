# SPDX-License-Identifier: Apache-2.0
"""Each key of a run file says what another value means to a run that goes on."""

from __future__ import annotations

import dataclasses
import json

import pytest

from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.masking import HIDDEN
from recipe.runfile.paths import REPO
from recipe.runfile.schema import Recompute
from recipe.runfile.settings import differences, keys, require_acceptable, require_continuable
from recipe.runfile.typed_toml import CHANGES, FREE, IMPOSSIBLE, key

SIM = load(REPO / "configs" / "sim.toml")
BEFORE = json.loads(json.dumps(dataclasses.asdict(SIM)))


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (FREE, "run.steps rollout.memory_share actor.micro_batch_tokens actor.recompute.layers rollout.graph_mode"),
        (FREE, "actor.optimizer environment reward.workers run.step_deadline_s cluster.head cluster.nodes"),
        (FREE, "actor.stage_layers actor.expert_parallel"),
        (CHANGES, "train.learning_rate train.prompts_per_step train.kl_coefficient data.max_response_tokens data.path"),
        (CHANGES, "reward.verifier run.seed rollout.temperature rollout.samples_per_prompt"),
        (IMPOSSIBLE, "model.kind model.path"),
    ],
)
def test_the_kinds(kind: str, names: str) -> None:
    assert {keys()[name].metadata["on_resume"] for name in names.split()} == {kind}


def test_a_key_cannot_be_added_without_saying_it() -> None:
    with pytest.raises(TypeError, match="on_resume"):
        key("a new key")  # type: ignore[call-arg]
    with pytest.raises(AssertionError):
        key("a new key", on_resume="maybe")


def test_the_same_run_file_has_no_differences() -> None:
    assert differences(BEFORE, SIM) == []
    require_continuable([], (), "it cannot go on")


def test_a_table_that_was_not_there_before() -> None:
    after = dataclasses.replace(SIM, actor=dataclasses.replace(SIM.actor, recompute=Recompute(granularity="selective")))
    (change,) = differences(BEFORE, after)
    assert (change.key, change.on_resume) == ("actor.recompute.granularity", FREE)
    back = json.loads(json.dumps(dataclasses.asdict(after)))
    assert [change.key for change in differences(back, SIM)] == ["actor.recompute.granularity"]


def test_masked_values_of_the_environment_tell_nothing() -> None:
    after = dataclasses.replace(SIM, environment={"WANDB_API_KEY": "x", "LEVEL": "2"})
    before = {**BEFORE, "environment": {"WANDB_API_KEY": HIDDEN, "LEVEL": "2"}}
    assert differences(before, after) == []
    before["environment"] = {"WANDB_API_KEY": HIDDEN, "LEVEL": "1", "GONE": "1"}
    assert [change.text for change in differences(before, after)] == ["[environment] differs in GONE, LEVEL"]


def test_what_is_not_accepted_is_named_with_the_option_that_accepts_it() -> None:
    train = dataclasses.replace(SIM.train, learning_rate=1.0, kl_coefficient=0.5)
    changes = differences(BEFORE, dataclasses.replace(SIM, train=train))
    with pytest.raises(ConfigError, match=r"give --accept train\.learning_rate --accept train\.kl_coefficient$"):
        require_continuable(changes, (), "it cannot go on")
    require_continuable(changes, ("train.learning_rate", "train.kl_coefficient"), "it cannot go on")


def test_settings_of_verl_are_compared_one_by_one() -> None:
    shuffle, generations, steps = (
        "actor_rollout_ref.actor.shuffle",
        "trainer.log_val_generations",
        "global_profiler.steps",
    )
    before = {**BEFORE, "verl": {shuffle: True, generations: 1, "+trainer.val_only": False}}
    now = dataclasses.replace(SIM, verl={steps: [1], generations: 2, "++trainer.val_only": False})
    changed = {change.key: (change.on_resume, change.text) for change in differences(before, now)}
    assert changed == {
        f"verl.{shuffle}": (CHANGES, f"[verl] {shuffle} is not set now and True in the checkpoint"),
        f"verl.{generations}": (FREE, f"[verl] {generations} is 2 now and 1 in the checkpoint"),
        f"verl.{steps}": (FREE, f"[verl] {steps} is [1] now and not set in the checkpoint"),
    }
    with pytest.raises(ConfigError, match=f"give --accept verl.{shuffle}"):
        require_continuable(differences(before, now), (), "it cannot go on")
    require_acceptable([f"verl.{shuffle}"])
    require_continuable(differences(before, now), [f"verl.{shuffle}"], "it cannot go on")
    with pytest.raises(ConfigError, match="it may differ without that"):
        require_acceptable([f"verl.{generations}"])


def test_a_checkpoint_from_before_there_were_settings_of_verl() -> None:
    before = {name: section for name, section in BEFORE.items() if name != "verl"}
    assert differences(before, SIM) == []
