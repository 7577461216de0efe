# SPDX-License-Identifier: Apache-2.0
"""A data loader that is resumed at any step gives the batches that the first would have given, in later epochs too."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torchdata.stateful_dataloader import StatefulDataLoader
from verl.trainer.main_ppo import create_rl_sampler

from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.paths import RunPaths
from verl_patches.trainer.ppo.random_states import own_generator

SIM = Path(__file__).resolve().parents[4] / "configs" / "sim.toml"
ROWS, BATCH, STEPS = 22, 4, 16  # five batches an epoch, two rows left over


@pytest.fixture(scope="module")
def data_config() -> Any:
    """The part of verl's configuration that says in which order the problems come, as the launcher gives it."""
    config = load(SIM)
    paths = RunPaths(Path("/runs/sim"), "id", Path("/tmp/grpo-1"))
    overrides = derive_run(config, paths=paths).overrides
    parts = ("data.seed=", "data.sampler.", "data.dataloader_num_workers=")
    derived = OmegaConf.from_dotlist([item for item in overrides if item.startswith(parts)]).data
    return OmegaConf.merge({"shuffle": True, "sampler": {"class_path": None, "class_name": None}}, derived)


def loader(data_config: Any) -> StatefulDataLoader:
    """As verl's trainer makes it, in a process that has just begun."""
    rows = list(range(ROWS))
    sampler = create_rl_sampler(data_config, rows)
    made = StatefulDataLoader(dataset=rows, batch_size=BATCH, num_workers=0, drop_last=True, sampler=sampler)
    own_generator(made)
    return made


def batches(data: StatefulDataLoader) -> Iterator[list[int]]:
    while True:
        for batch in data:
            yield batch.tolist()


def states_and_batches(data: StatefulDataLoader) -> list[tuple[list[int], bytes]]:
    """The batch of every step and verl's data.pt after it."""
    steps = []
    for _, batch in zip(range(STEPS), batches(data), strict=False):
        stream = io.BytesIO()
        torch.save(data.state_dict(), stream)
        steps.append((batch, stream.getvalue()))
    return steps


def test_every_step_of_three_epochs_can_be_resumed_after(data_config: Any) -> None:
    steps = states_and_batches(loader(data_config))
    epochs = [[row for batch, _ in steps[at : at + 5] for row in batch] for at in (0, 5, 10)]
    assert all(len(set(epoch)) == 5 * BATCH for epoch in epochs), "no problem twice in an epoch"
    assert epochs[0] != epochs[1] != epochs[2], "another order in each"
    for done in range(1, STEPS):
        resumed = loader(data_config)
        resumed.load_state_dict(torch.load(io.BytesIO(steps[done - 1][1]), weights_only=False))  # our own of above
        rest = [batch for _, batch in zip(range(STEPS - done), batches(resumed), strict=False)]
        assert rest == [batch for batch, _ in steps[done:]], f"resumed after step {done}"


def test_the_order_follows_from_the_seed(data_config: Any) -> None:
    def first(seed: int) -> list[int]:
        return next(batches(loader(OmegaConf.merge(data_config, {"seed": seed}))))

    assert first(1) == first(1) != first(2)


def test_a_pass_over_the_data_leaves_the_generator_of_the_process_alone(data_config: Any) -> None:
    before = torch.get_rng_state()
    next(batches(loader(data_config)))
    assert torch.equal(torch.get_rng_state(), before)
