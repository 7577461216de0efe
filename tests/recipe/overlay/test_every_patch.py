# SPDX-License-Identifier: Apache-2.0
"""Every patch of this repository, on the real upstreams, in every order of import, patch and revert."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.audit.declarations import collect
from recipe.overlay import Declaration
from tests.recipe.overlay.every_order import ORDERS

REPO = Path(__file__).resolve().parents[3]
PATCHES = collect()
Outcomes = dict[tuple[str, str], dict[str, str]]


def outcomes_of(packages: set[str], upstream: Path) -> Outcomes:
    """(patch, order) -> {outcome, detail}, from one process for each upstream package and order."""
    environment = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{upstream}", "RECIPE_UPSTREAM": str(upstream)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("RECIPE_RUN_DIR", None)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("every_order.py")), *sorted(packages)],
        capture_output=True, text=True, timeout=1200, check=False, cwd=REPO, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len({(line["patch"], line["order"]) for line in lines})
    return {(line["patch"], line["order"]): line for line in lines}


@pytest.fixture(scope="module")
def outcomes() -> Outcomes:
    upstream = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream"))
    return outcomes_of({patch.package for patch in PATCHES} - {"mindspeed"}, upstream)


@pytest.fixture(scope="module")
def mindspeed_outcomes(mindspeed_upstream: Path) -> Outcomes:
    return outcomes_of({"mindspeed"}, mindspeed_upstream)


def of(*packages: str) -> list[Declaration]:
    return [patch for patch in PATCHES if patch.package in packages]


def test_there_are_at_least_seventeen_orders():
    assert len(set(ORDERS)) >= 17 and all(set(order) <= set("IPR") and "I" in order for order in ORDERS)


def check(outcome: dict[str, str], patch: Declaration, order: str) -> None:
    if outcome["outcome"] == "skipped":
        assert outcome["detail"] == patch.otherwise != ""
    elif patch.kind == "submodule" and order.startswith("I"):
        assert outcome["outcome"] == "refused" and "was imported before the overlay" in outcome["detail"]
    else:
        assert outcome["outcome"] == "live", outcome["detail"]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("patch", of("megatron", "verl", "vllm", "vllm_ascend"), ids=lambda patch: patch.id)
def test_order(outcomes: Outcomes, patch: Declaration, order: str) -> None:
    check(outcomes[patch.id, order], patch, order)


@pytest.mark.mindspeed
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("patch", of("mindspeed"), ids=lambda patch: patch.id)
def test_order_of_a_patch_on_mindspeed(mindspeed_outcomes: Outcomes, patch: Declaration, order: str) -> None:
    check(mindspeed_outcomes[patch.id, order], patch, order)


def test_every_patch_is_tested() -> None:
    assert len(of("megatron", "verl", "vllm", "vllm_ascend", "mindspeed")) == len(PATCHES)
