# SPDX-License-Identifier: Apache-2.0
"""Weights moved between real processes; what is checked in each is in transport_process.py."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.ranks import Ranks
from tests.verl_patches.utils.routes.engines import TinySizes
from verl_patches.utils.routes.layouts import ActorLayout, RolloutLayout
from verl_patches.utils.routes.routes import Routes
from verl_patches.utils.routes.transport import Transport


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    log = tmp_path_factory.mktemp("transport") / "log"
    with contextlib.closing(Ranks("tests.verl_patches.utils.routes.transport_process", log=log)) as ranks:
        yield ranks


def case(dies: int, stage_layers: list[int], actor: tuple[int, int], rollout: tuple[int, int], **more: Any) -> Any:
    """A job: `actor` is tensor and expert parallel, `rollout` tensor parallel and instances."""
    sizes = {"layers": sum(stage_layers), **more.pop("sizes", {})}
    return {
        "sizes": sizes,
        "actor": {"dies": dies, "tensor": actor[0], "expert": actor[1], "stage_layers": stage_layers},
        "rollout": {"dies": dies, "tensor": rollout[0], "instances": rollout[1], **more.pop("rollout_more", {})},
        "buffer_bytes": 4096, "item_bytes": 2, **more,
    }  # fmt: skip


CASES = {
    "one die": case(1, [2], (1, 1), (1, 1)),
    "ep 2 to 8, four uneven stages": case(8, [1, 2, 2, 1], (1, 2), (1, 1)),
    "ep 4 to 4, two instances": case(8, [3, 1], (1, 4), (1, 2)),
    "ep 4 to 2, four instances": case(8, [2, 2], (1, 4), (1, 4)),
    "two holders of each expert": case(8, [2, 1], (1, 2), (2, 1)),
    "four holders, one stage": case(4, [3], (1, 1), (1, 1)),
    "tp 2 to tp 1": case(4, [2], (2, 2), (1, 1)),
    "tp 2 to tp 2": case(4, [1, 2], (2, 2), (2, 1)),
    "tp 2 to tp 4": case(8, [1, 2], (2, 4), (4, 1)),
    "tp 4 to tp 2, two holders": case(8, [2], (4, 4), (2, 2)),
    "stages of one die, tp 2 in the rollout": case(4, [1, 1, 1, 1], (1, 1), (2, 1)),
    "padded vocabulary over tp 4": case(4, [3], (1, 2), (4, 1), sizes={"vocabulary": 68}),
    "experts that do not divide": case(4, [1, 2], (1, 2), (1, 1), sizes={"experts": 10}),
    "shared experts whole": case(4, [2, 1], (1, 2), (2, 1), rollout_more={"replicated_shared": True}),
    "a buffer of a few rows": case(4, [2, 1], (2, 1), (2, 1), buffer_bytes=600),
}


@pytest.mark.parametrize("name", CASES)
def test_the_rollout_has_the_actors_weights_after_each_sync(ranks: Ranks, tmp_path: Path, name: str) -> None:
    job = {"name": "moves", "syncs": 2, **CASES[name]}
    ranks.run(job, tmp_path / "rank", ranks=job["actor"]["dies"], limit_s=120)


def test_every_element_is_its_own(ranks: Ranks, tmp_path: Path) -> None:
    """In float32, which numbers all elements, so that none can stand for another."""
    job = {"name": "moves", "syncs": 1, **CASES["tp 2 to tp 4"], "item_bytes": 4, "buffer_bytes": 8192}
    ranks.run(job, tmp_path / "rank", ranks=8, limit_s=120)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (True, "ranks [2] were given other layouts, model sizes or buffer than rank 0: nothing was sent"),
        (False, "what some rank would send is not what another expects: nothing was sent"),
    ],
)
def test_a_rank_that_disagrees_stops_all_before_anything_is_sent(
    ranks: Ranks, tmp_path: Path, given: bool, message: str
) -> None:
    job = {"name": "disagrees", **CASES["tp 2 to tp 2"], "odd": 2, "given": given, "message": message}
    ranks.run(job, tmp_path / "rank", ranks=4, limit_s=60)


def test_a_type_of_another_size_is_refused() -> None:
    routes = Routes(TinySizes(layers=1), ActorLayout(1, 1, 1, (1,)), RolloutLayout(1, 1, 1))
    with pytest.raises(ValueError, match=r"torch\.float32 has 4 bytes, the routes count 2"):
        Transport(routes, 0, torch.float32)


def test_the_planner_needs_no_torch() -> None:
    """`plan` and `preflight` run where there is none."""
    code = "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; import recipe.plan.routes"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
