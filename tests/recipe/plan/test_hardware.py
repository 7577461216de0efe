# SPDX-License-Identifier: Apache-2.0
"""The plan knows which dies it plans for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from recipe.plan.hardware import BY_NAME, hardware_of
from recipe.runfile.config import load
from recipe.runfile.schema import ASSUMED, DIE_KINDS

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def test_every_kind_of_die_has_its_figures() -> None:
    assert set(BY_NAME) == set(DIE_KINDS)
    assert len({hardware.name for hardware in BY_NAME.values()}) == len(BY_NAME)
    for hardware in BY_NAME.values():
        assert min(hardware.tflops_bf16, hardware.memory_gb_s, hardware.link_gb_s, hardware.dies_per_device) > 0


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_files_say_what_their_dies_are(path: Path) -> None:
    config = load(path)
    assert (hardware_of(config) is None) == config.simulated
    if not config.simulated:
        assert config.cluster.hardware is not None
        assert path.stem.startswith(config.cluster.hardware.partition("_")[0] + "_")


def test_an_a2_is_no_half_of_a_package() -> None:
    a3 = load(CONFIGS / "a3_256die.toml")
    a2 = dataclasses.replace(a3, cluster=dataclasses.replace(a3.cluster, hardware="a2"))
    for_a3, for_a2 = hardware_of(a3), hardware_of(a2)
    assert for_a3 is not None and for_a2 is not None
    assert (for_a3.dies_per_device, for_a2.dies_per_device) == (2, 1)
    assert "A2" in for_a2.name and "A3" not in for_a2.name


def test_the_documented_dies_are_those_that_are_planned_with() -> None:
    page = (CONFIGS.parent / "docs/PLAN.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if " GB | " in line]
    documented = {row[0].split("`")[1]: row for row in rows}
    assert set(documented) == set(DIE_KINDS)
    for name, kind in DIE_KINDS.items():
        assert documented[name][1:4] == [f"{kind.per_node}", f"{kind.label_gb:g} GB", f"{kind.offered_gib:g}"]
        assert kind.source.partition(":")[0].partition(",")[0] in documented[name][4]
        assert (f'assumed for `device = "{kind.device}"`' in documented[name][0]) == (ASSUMED[kind.device] == name)
