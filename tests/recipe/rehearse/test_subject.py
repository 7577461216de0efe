# SPDX-License-Identifier: Apache-2.0
"""What is rehearsed of a run file, and what cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from recipe.rehearse.subject import Options, rehearsed
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import DIE, HOST, SWAPPED
from tests.recipe.rehearse.made_up import a_run


def test_each_stage_is_rehearsed_on_its_first_die_with_as_many_micro_batches_as_are_in_flight_and_one() -> None:
    run = a_run()
    assert run.stages == tuple(range(8))
    assert [run.rank(stage) for stage in run.stages] == [32 * stage for stage in range(8)]
    assert [run.update_micro_batches(stage) for stage in run.stages] == [9, 8, 7, 6, 5, 4, 3, 2]
    assert run.forward_sequences == 2 * run.planned.layout.log_prob_micro_batch == 8
    assert a_run(micro_batches=2).update_sequences(0) == 2
    assert run.strict and 0 <= run.given.hbm_bytes_per_die - run.config.hbm_bytes_per_die < 2**20


def test_a_rollout_is_once_on_every_stage_or_nowhere() -> None:
    engine = a_run().planned.layout.rollout_sequences_per_engine
    assert engine == 64
    for asked, wanted in (("once", [engine, 0]), ("every", [engine, engine]), ("none", [0, 0])):
        run = a_run(stages=(1, 4), rollout=asked)
        assert [run.rollout_sequences(stage) for stage in run.stages] == wanted
        assert run.describes_stages == (asked != "none")
    assert not a_run("configs/sim.toml").describes_stages  # a single stage has nobody to tell
    direct = dataclasses.replace(run.config, rollout=dataclasses.replace(run.config.rollout, direct_sync=True))
    assert not rehearsed(direct, Options(), Path("/nowhere")).describes_stages
    assert a_run(decode_steps=5, response=4).decode_steps == 4


def test_without_mindspeed_what_takes_its_place_is_said(tmp_path: Path) -> None:
    run = a_run()
    assert run.given.actor.optimizer == SWAPPED and run.config.actor.optimizer == HOST
    assert not run.mindspeed and not run.planned.fused
    assert any("MindSpeed is not among" in note for note in run.notes) and any(HOST in note for note in run.notes)
    (tmp_path / "mindspeed").mkdir()
    run = a_run(upstream=tmp_path)
    assert run.mindspeed and run.planned.fused and run.planned.stacked
    assert run.config.actor.optimizer == SWAPPED and not run.notes


def test_an_optimizer_on_the_die_takes_a_step_to_be_there() -> None:
    config = a_run().given
    assert a_run().steps == 1 and a_run(steps=3).steps == 3
    on_die = dataclasses.replace(config, actor=dataclasses.replace(config.actor, optimizer=DIE))
    assert rehearsed(on_die, Options(), Path("/nowhere")).steps == 2
    assert a_run("configs/sim.toml").steps == 2  # offloaded, and there in an update


def test_a_checkpoint_is_saved_if_the_run_saves_any_or_as_asked() -> None:
    assert [a_run().saves, a_run("configs/a3_384die_base_acc.toml").saves] == [False, True]
    assert a_run(save=True).saves and not a_run("configs/a3_384die_base_acc.toml", save=False).saves


def test_a_simulated_run_is_as_strict_as_it_is() -> None:
    assert not a_run("configs/sim.toml").strict
    assert a_run("configs/sim_legal.toml").strict


@pytest.mark.parametrize(
    ("file", "options", "message"),
    [
        ("configs/h20_128gpu_math_lighteval.toml", {}, 'device = "cuda"'),
        ("configs/sim.toml", {"stages": (1,)}, "--stage 1; expected one of 0 to 0"),
        ("configs/sim.toml", {"stages": (-1,)}, "--stage -1"),
        ("configs/sim.toml", {"prompt": 17}, "--prompt-tokens 17; expected 1 to 16"),
        ("configs/sim.toml", {"response": 0}, "--response-tokens 0; expected 1 to 24"),
        ("configs/sim.toml", {"expert_load": 2.1}, "at most 2 times"),
        ("configs/a3_256die_random_init.toml", {"expert_load": 33}, "at most 32 times"),
    ],
)
def test_what_cannot_be_rehearsed_is_refused(file: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        a_run(file, **options)
