# SPDX-License-Identifier: Apache-2.0
"""What saving a checkpoint takes on the host, by hand; test_against_simulator.py counts it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from recipe.plan.memory import host
from recipe.plan.parameters import total_parameters
from recipe.plan.saving import FROM_DIES, FROM_HOST, saved_copies
from recipe.plan.stages import stage_buffers
from recipe.plan.subject import Subject, subject
from recipe.runfile.config import load

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
EXPERT = 3 * 7168 * 2048


def run(name: str = "a3_256die", *, section: str = "run", **values: Any) -> Subject:
    config = load(CONFIGS / f"{name}.toml")
    return subject(dataclasses.replace(config, **{section: dataclasses.replace(getattr(config, section), **values)}))


def test_a_stage_of_the_big_run_by_hand() -> None:
    """Stage 1: 8 layers of 256 experts on 32 dies, each weight written by one of them."""
    attention = 7168 * (1536 + 576) + 1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168
    rest = attention + EXPERT + 256 * 7168 + 2 * 7168 + 1536 + 512
    copies = saved_copies(run(), 1)
    assert copies[FROM_DIES] == pytest.approx(2 * 8 * (256 * EXPERT + rest) / 32, rel=1e-6)
    # Two thirds of an expert are gate and up projection; all but the experts is spread over the 32 dies. MindSpeed
    # copies every state once more.
    gated = 12 * 2 / 3 * 8 * (8 + 1 / 32) * EXPERT
    assert copies[FROM_HOST] == pytest.approx(gated + 12 * 8 * (8 * EXPERT + rest / 32), rel=1e-5)
    without_mindspeed = saved_copies(dataclasses.replace(run(), stacked=False), 1)
    assert without_mindspeed == {FROM_DIES: copies[FROM_DIES], FROM_HOST: pytest.approx(gated, rel=1e-6)}


def test_all_dies_together_write_every_weight_once() -> None:
    big = run()
    written = sum(saved_copies(big, stage)[FROM_DIES] * 32 for stage in range(8))
    assert written == pytest.approx(2 * total_parameters(big.model), rel=1e-6)


def test_a_run_that_saves_nothing_takes_nothing() -> None:
    saving, never = run(), run(save_every=0)
    assert saved_copies(never, 1) == {}
    assert host(saving).total - host(never).total == host(saving).parts[FROM_DIES] + host(saving).parts[FROM_HOST]


@pytest.mark.parametrize(("name", "locked"), [("a3_256die", False), ("h20_128gpu_math_lighteval", True)])
def test_only_without_mindspeed_copies_are_page_locked(name: str, locked: bool) -> None:
    saving, never = host(run(name)), host(run(name, save_every=0))
    assert saving.pinned_total - never.pinned_total == (saving.parts[FROM_DIES] if locked else 0)


def test_an_optimizer_on_the_die_is_copied_whole() -> None:
    swapped, resident = run(), run(section="actor", optimizer="die")
    states = stage_buffers(resident, 1).optimizer_bytes
    assert saved_copies(resident, 1)[FROM_DIES] == saved_copies(swapped, 1)[FROM_DIES] + states
    assert saved_copies(resident, 1)[FROM_HOST] == 0


def test_what_the_host_does_not_update_is_copied_from_the_die() -> None:
    most = run("h20_128gpu_math_lighteval", section="actor", optimizer="host", optimizer_host_share=0.75)
    all_of_it = run("h20_128gpu_math_lighteval", section="actor", optimizer="host")
    states = stage_buffers(most, 1).optimizer_bytes
    difference = saved_copies(most, 1)[FROM_DIES] - saved_copies(all_of_it, 1)[FROM_DIES]
    assert difference == pytest.approx(states / 4, rel=1e-6)
    assert saved_copies(most, 1)[FROM_HOST] == pytest.approx(0.75 * saved_copies(all_of_it, 1)[FROM_HOST], rel=1e-6)
