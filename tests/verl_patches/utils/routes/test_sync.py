# SPDX-License-Identifier: Apache-2.0
"""The direct weight sync against verl's own, bit for bit, between real engines on simulated dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recipe.plan.routes import routes_of, world
from tests.recipe.plan.layouts import Layout, Made, make_model
from tests.recipe.plan.workers import Workers


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_model(tmp_path_factory.mktemp("model"), Layout(1).expert_width)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    log = tmp_path_factory.mktemp("sync") / "log"
    module = "tests.verl_patches.utils.routes.sync_process"
    with contextlib.closing(Workers(module, mindspeed=None, log=log)) as workers:
        yield workers


LAYOUTS: dict[str, dict[str, Any]] = {
    "all at home": {"dies": 2},
    "two uneven stages; rollout tp2": {"dies": 4, "stages": (1, 3), "rollout_tensor": 2},
    "tp2; rollout tp2": {"dies": 2, "tensor": 2, "rollout_tensor": 2},
    "tp2, two stages; rollout tp1": {"dies": 4, "stages": (2, 2), "tensor": 2},
    "two holders of each expert": {"dies": 4},
    "two holders, two instances": {"dies": 4, "instances": 2},
    "uneven stages, two instances": {"dies": 4, "stages": (3, 1), "instances": 2},
}
FAST = ("two uneven stages; rollout tp2",)


@pytest.mark.proves("verl_patches.utils.megatron_utils:per_tensor_generator")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in LAYOUTS]
)
def test_the_rollout_is_bit_for_bit_as_verls_own_sync_leaves_it(
    workers: Workers, made: Made, tmp_path: Path, name: str
) -> None:
    planned = Layout(**LAYOUTS[name], direct_sync=True).planned()
    left = workers.run(planned, made, tmp_path, syncs=2)
    figures = world(routes_of(planned))
    least = [a.needed - a.own + b.needed - b.own for a, b in zip(figures.experts, figures.dense, strict=True)]
    assert [rank["received"] for rank in left] == least
