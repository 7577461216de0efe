# SPDX-License-Identifier: Apache-2.0
"""A die alone and without contents against the same die among all others, computing everything: verl's workers of the
tiny model have the same bytes on the die at every point, and exchange the same, to the byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.rehearse.contents import REST
from recipe.rehearse.job import SAVE
from tests.recipe.plan.layouts import LAYOUTS, Layout, Made, marks
from tests.recipe.plan.workers import Workers

RANKS = "tests.recipe.rehearse.rank_process"
# So little that nearly everything of the tiny model is without contents.
HOLLOW_FROM_BYTES = 1024
GRANULE = 512  # bytes that the simulated die counts in
TRAINING = {"log_prob", "ref", "update"}
PHASES = {"build", "switch", "rollout", *TRAINING}
# What the router would choose is not known without contents.
STEERED = [name for name, fields in LAYOUTS.items() if fields.get("load_of_first", 1.0) is not None]


# Prompts of other lengths in every micro-batch, and answers that end early: what they had is free for others.
HISTOGRAM = {"prompt": [[5, 1], [17, 2], [40, 1]], "response": [[1, 1], [9, 1], [24, 2]]}
UNEVEN = ("ep2", "pp2 ep2, uneven; rollout tp2", "ep2, MindSpeed, recomputed")
CASES = [(name, False) for name in STEERED] + [(name, True) for name in UNEVEN]


@pytest.mark.parametrize(
    ("name", "uneven"),
    [
        pytest.param(name, uneven, marks=marks(name), id=name + (", lengths that differ" if uneven else ""))
        for name, uneven in CASES
    ],
)
def test_a_die_alone_and_without_contents_has_the_same_bytes_and_the_same_traffic(
    name: str,
    uneven: bool,
    tiny_made: Callable[[int, str], Made],
    workers_of: Callable[[str, bool], Workers],
    tmp_path: Path,
) -> None:
    layout = Layout(**LAYOUTS[name])
    planned = layout.planned()
    workers = workers_of(RANKS, layout.mindspeed)
    made = tiny_made(layout.expert_width, layout.member)
    job = {
        "load_of_first": layout.load_of_first, "seed": layout.seed, "weights": False,
        "tensors": str(tmp_path / "tensors"), "stages": len(layout.stages), "histogram": HISTOGRAM if uneven else None,
    }  # fmt: skip
    full = workers.run(planned, made, tmp_path / "full", alone_as=None, **job)
    for rank, among_all in enumerate(full):
        alone = workers.run(
            planned, made, tmp_path / f"alone_{rank}", ranks=1, alone_as=rank, world_size=layout.dies,
            hollow_from_bytes=HOLLOW_FROM_BYTES, **job,
        )[0]  # fmt: skip
        assert_saves_the_same(alone, among_all)
        assert set(alone["phases"]) == set(among_all["phases"]) == {*PHASES, SAVE}
        # The ranks of an engine take the smallest of their caches: one that is sent less cannot know how large that is.
        if len(layout.stages) > 1:
            drop_names_on_the_die(alone, among_all)
        known = PHASES if rank == 0 or layout.load_of_first == 1.0 else TRAINING
        assert of_phases(alone["points"], known) == of_phases(among_all["points"], known)
        for phase in known:
            assert comparable(alone["phases"][phase]) == comparable(among_all["phases"][phase]), phase


def assert_saves_the_same(alone: dict[str, Any], among_all: dict[str, Any]) -> None:
    """Copies and files, to the byte. The messages are names and shapes, and each as long as the longest of a group's:
    alone, as this die's own. What is missing there is missing on the die too, and nothing else."""
    for of in ("copies", "of_stage"):
        assert alone["saved"][of] == among_all["saved"][of]
    # What the die alone would write is what the other has written; it has written nothing.
    parts = {Path(name).name: size for name, size in alone["saved"]["files"].items() if name.endswith(".distcp")}
    assert parts == among_all["written"] and len(parts) == 2 and not alone["written"]
    found, wanted = (comparable(run["phases"][SAVE]) for run in (alone, among_all))
    missing = 0
    for one, other in zip(found.pop("traffic"), wanted.pop("traffic"), strict=True):
        assert [one[key] for key in ("group", "size", "kind", "calls")] == [
            other[key] for key in ("group", "size", "kind", "calls")
        ]
        assert one["received"] <= 1.001 * other["received"]
        missing += max(0, other["received"] - one["received"])
    assert -GRANULE <= wanted.pop("peak_bytes") - found.pop("peak_bytes") <= missing + GRANULE
    found.pop("contents"), wanted.pop("contents")
    assert found == wanted


def drop_names_on_the_die(alone: dict[str, Any], among_all: dict[str, Any]) -> None:
    """The names that stages tell each other: alone, two tensors of a few bytes more, and messages of another length."""
    of_sync = [(run["points"]["rollout.update_weights"], "peak") for run in (alone, among_all)]
    of_switch = [(run["phases"]["switch"], "peak_bytes") for run in (alone, among_all)]
    for (found, key), (wanted, _) in (of_sync, of_switch):
        assert 0 <= found[key] - wanted[key] <= 2 * GRANULE
        found[key] = wanted[key]
    sent = [comparable(run["phases"]["switch"])["traffic"] for run in (alone, among_all)]
    for found, wanted in zip(*sent, strict=True):
        if found["group"].startswith("pipeline"):
            assert found["calls"] == wanted["calls"]
            assert abs(found["received"] - wanted["received"]) <= 0.005 * wanted["received"]
            found.update(wanted)
    alone["phases"]["switch"]["traffic"] = sent[0]
    found_contents, wanted_contents = (run["phases"]["switch"]["contents"] for run in (alone, among_all))
    found_contents[REST] = wanted_contents[REST]


def of_phases(points: dict[str, Any], phases: set[str]) -> dict[str, Any]:
    """The readings of these phases."""
    return {point: reading for point, reading in points.items() if point.split(".")[0] in phases}


def comparable(phase: dict[str, Any]) -> dict[str, Any]:
    """A phase without what is a matter of the machine, and of how contents are given to the router's logits."""
    kept = {name: value for name, value in phase.items() if name not in ("wall_s", "operators")}
    return {**kept, "traffic": sorted(kept["traffic"], key=lambda one: (one["group"], one["size"], one["kind"]))}
