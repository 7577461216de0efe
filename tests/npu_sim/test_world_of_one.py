# SPDX-License-Identifier: Apache-2.0
"""A world of one against a real world, and at the size of a run; what is checked is in world_of_one_process.py."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ranks import Ranks


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    log = tmp_path_factory.mktemp("world_of_one") / "log"
    with contextlib.closing(Ranks("tests.npu_sim.world_of_one_process", log=log)) as ranks:
        yield ranks


@pytest.mark.parametrize("size", [2, 3])
def test_every_collective_is_that_of_a_real_world_of_ranks_that_hold_the_same(ranks: Ranks, tmp_path: Path, size: int):
    ranks.run({"name": "equals_a_real_world"}, tmp_path / "rank", ranks=size, limit_s=150)


@pytest.mark.parametrize(
    "name",
    [
        "what_is_refused",
        "what_only_a_peer_knows",
        "what_is_counted",
        "tensors_without_contents",
        "a_large_group_is_cheap",
        "megatron_layout",
    ],
)
def test_alone(ranks: Ranks, tmp_path: Path, name: str):
    ranks.run({"name": name}, tmp_path / "rank", ranks=1, limit_s=60)
