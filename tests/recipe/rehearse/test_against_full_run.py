# SPDX-License-Identifier: Apache-2.0
"""A die alone and without contents against the same die among all others, computing everything: verl's workers of the
tiny model have the same bytes on the die at every point, and exchange the same, to the byte."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recipe.plan.layouts import FAST, LAYOUTS, Layout, Made, make_model
from tests.recipe.plan.workers import Workers

RANKS = "tests.recipe.rehearse.rank_process"
# So little that nearly everything of the tiny model is without contents.
HOLLOW_FROM_BYTES = 1024
TRAINING = {"log_prob", "ref", "update"}
PHASES = {"build", "switch", "rollout", *TRAINING}
# What the router would choose is not known without contents.
STEERED = [name for name, fields in LAYOUTS.items() if fields.get("load_of_first", 1.0) is not None]


def marks(name: str) -> list[pytest.MarkDecorator]:
    slow = [] if name in FAST else [pytest.mark.slow]
    return [*slow, pytest.mark.mindspeed] if "MindSpeed" in name else slow


@pytest.fixture(scope="session")
def tiny_made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Made]:
    """Makes the model with experts of this width, once."""
    return functools.cache(lambda width: make_model(tmp_path_factory.mktemp("model"), width))


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Without MindSpeed."""
    made = Workers(RANKS, None, tmp_path_factory.mktemp("workers") / "log")
    yield made
    made.close()


@pytest.fixture(scope="session")
def workers_with_mindspeed(mindspeed_upstream: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Their process is another: MindSpeed changes all of Megatron-core in it."""
    made = Workers(RANKS, mindspeed_upstream, tmp_path_factory.mktemp("workers") / "log")
    yield made
    made.close()


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in STEERED])
def test_a_die_alone_and_without_contents_has_the_same_bytes_and_the_same_traffic(
    name: str, tiny_made: Callable[[int], Made], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    layout = Layout(**LAYOUTS[name])
    planned = layout.planned()
    workers: Workers = request.getfixturevalue("workers_with_mindspeed" if layout.mindspeed else "workers")
    made = tiny_made(layout.expert_width)
    job = {
        "load_of_first": layout.load_of_first, "seed": layout.seed, "weights": False,
        "tensors": str(tmp_path / "tensors"), "stages": len(layout.stages),
    }  # fmt: skip
    full = workers.run(planned, made, tmp_path / "full", alone_as=None, **job)
    for rank, among_all in enumerate(full):
        alone = workers.run(
            planned, made, tmp_path / f"alone_{rank}", ranks=1, alone_as=rank, world_size=layout.dies,
            hollow_from_bytes=HOLLOW_FROM_BYTES, **job,
        )[0]  # fmt: skip
        assert set(alone["phases"]) == set(among_all["phases"]) == PHASES
        # The ranks of an engine take the smallest of their caches: one that is sent less cannot know how large that is.
        known = PHASES if rank == 0 or layout.load_of_first == 1.0 else TRAINING
        assert of_phases(alone["points"], known) == of_phases(among_all["points"], known)
        for phase in known:
            assert comparable(alone["phases"][phase]) == comparable(among_all["phases"][phase]), phase


def of_phases(points: dict[str, Any], phases: set[str]) -> dict[str, Any]:
    """The readings of these phases."""
    return {point: reading for point, reading in points.items() if point.split(".")[0] in phases}


def comparable(phase: dict[str, Any]) -> dict[str, Any]:
    """A phase without what is a matter of the machine, and of how contents are given to the router's logits."""
    kept = {name: value for name, value in phase.items() if name not in ("wall_s", "operators")}
    return {**kept, "traffic": sorted(kept["traffic"], key=lambda one: (one["group"], one["size"], one["kind"]))}
