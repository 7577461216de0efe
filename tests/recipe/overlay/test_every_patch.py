# SPDX-License-Identifier: Apache-2.0
"""Every patch of this repository, on the real upstreams, in every order of import, patch and revert."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.audit.declarations import Declaration, collect
from tests.recipe.overlay.every_order import ORDERS

REPO = Path(__file__).resolve().parents[3]
UPSTREAM = Path(os.environ.get("RECIPE_UPSTREAM", REPO / "upstream"))
PATCHES = collect()


@pytest.fixture(scope="module")
def outcomes() -> dict[tuple[str, str], dict[str, str]]:
    """(patch, order) -> {outcome, detail}, from one process for each upstream package and order."""
    environment = {**os.environ, "PYTHONPATH": f"{REPO}{os.pathsep}{UPSTREAM}", "RECIPE_UPSTREAM": str(UPSTREAM)}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    environment.pop("RECIPE_RUN_DIR", None)
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("every_order.py"))],
        capture_output=True, text=True, timeout=1200, check=False, cwd=REPO, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len({(line["patch"], line["order"]) for line in lines})
    return {(line["patch"], line["order"]): line for line in lines}


def test_there_are_at_least_seventeen_orders():
    assert len(set(ORDERS)) >= 17 and all(set(order) <= set("IPR") and "I" in order for order in ORDERS)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda one: one.id)
def test_order(outcomes: dict[tuple[str, str], dict[str, str]], patch: Declaration, order: str) -> None:
    if not (UPSTREAM / patch.package).is_dir():
        pytest.skip(f"NOT RUN: {patch.package} is not there; bring it: python -m recipe sync --with {patch.package}")
    found = outcomes[patch.id, order]
    if found["outcome"] == "skipped":
        assert patch.when is not None and found["detail"]
    elif patch.kind == "submodule" and order.startswith("I"):
        assert found["outcome"] == "refused" and "was imported before the overlay" in found["detail"]
    else:
        assert found["outcome"] == "live", found["detail"]
