# SPDX-License-Identifier: Apache-2.0
"""The direct weight sync against verl's own, bit for bit, between real engines on simulated dies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.plan.routes import routes_of, world
from recipe.plan.subject import Subject
from tests.recipe.plan.layouts import Layout, Made
from tests.recipe.plan.workers import Workers

RANKS = "tests.verl_patches.utils.routes.sync_process"
LAYOUTS: dict[str, dict[str, Any]] = {
    "all at home": {"dies": 2},
    "two uneven stages; rollout tp2": {"dies": 4, "stages": (1, 3), "rollout_tensor": 2},
    "a stage for each layer": {"dies": 8, "stages": (1, 1, 1, 1)},
    "tp2; rollout tp2": {"dies": 2, "tensor": 2, "rollout_tensor": 2},
    "tp2, two stages; rollout tp1": {"dies": 4, "stages": (2, 2), "tensor": 2},
    "tp2; rollout tp4": {"dies": 4, "tensor": 2, "rollout_tensor": 4},
    "two holders of each expert": {"dies": 4},
    "four holders of each expert": {"dies": 8},
    "two holders, two instances": {"dies": 4, "instances": 2},
    "ep4; two instances of ep2": {"dies": 4, "expert": 4, "instances": 2},
    "uneven stages, two instances": {"dies": 4, "stages": (3, 1), "instances": 2},
    "ep2; rollout ep8": {"dies": 8, "stages": (1, 3)},
    "ep4, uneven stages; two instances of tp2": {
        "dies": 8, "stages": (3, 1), "expert": 4, "rollout_tensor": 2, "instances": 2
    },
    "a buffer of a tenth of what travels": {
        "dies": 4, "stages": (1, 3), "expert_width": 1024, "direct_sync_buffer_mib": 1
    },
    "two uneven stages, MindSpeed": {"dies": 4, "stages": (1, 3), "mindspeed": True},
}  # fmt: skip
FAST = ("two uneven stages; rollout tp2",)
RESUMED = "two uneven stages; rollout tp2"


def marks(name: str) -> list[pytest.MarkDecorator]:
    slow = [] if name in FAST else [pytest.mark.slow]
    return [*slow, pytest.mark.mindspeed] if "MindSpeed" in name else slow


@pytest.fixture
def sync(
    workers_of: Callable[[str, bool], Workers], tiny_made: Callable[[int], Made]
) -> Callable[..., tuple[Subject, list[Any]]]:
    """Has the dies of a layout sync several times, both ways; each compares what comes of it."""

    def synced(name: str, directory: Path, **job: Any) -> tuple[Subject, list[Any]]:
        layout = Layout(**LAYOUTS[name], direct_sync=True)
        planned = layout.planned()
        workers = workers_of(RANKS, layout.mindspeed)
        return planned, workers.run(planned, tiny_made(layout.expert_width), directory, **job)

    return synced


@pytest.mark.proves("verl_patches.utils.megatron_utils:per_tensor_generator")
@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in LAYOUTS])
def test_the_rollout_is_bit_for_bit_as_verls_own_sync_leaves_it(
    sync: Callable[..., tuple[Subject, list[Any]]], tmp_path: Path, name: str
) -> None:
    planned, left = sync(name, tmp_path, syncs=2)
    figures = world(routes_of(planned))
    least = [a.needed - a.own + b.needed - b.own for a, b in zip(figures.experts, figures.dense, strict=True)]
    assert [rank["received"] for rank in left] == least


@pytest.mark.slow
def test_a_resumed_actor_gives_the_rollout_that_was_saved(
    sync: Callable[..., tuple[Subject, list[Any]]], tmp_path: Path
) -> None:
    checkpoint = str(tmp_path / "checkpoint")
    _, saved = sync(RESUMED, tmp_path / "before", syncs=2, save_to=checkpoint)
    _, resumed = sync(RESUMED, tmp_path / "after", syncs=1, load_from=checkpoint)
    _, fresh = sync(RESUMED, tmp_path / "fresh", syncs=1)
    digests = [[rank["rollout"] for rank in ranks] for ranks in (saved, resumed, fresh)]
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])
