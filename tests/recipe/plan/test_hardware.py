# SPDX-License-Identifier: Apache-2.0
"""The plan names the nodes that it plans for, and the pages have their figures."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from recipe.plan.hardware import hardware_table, source_table
from recipe.plan.page import as_text
from recipe.plan.plan import make_plan
from recipe.plan.subject import subject
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.schema import HARDWARE, NPU, CustomHardware, RunConfig
from recipe.runfile.show import as_text as show

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


def on(config: RunConfig, hardware: str, **cluster: Any) -> RunConfig:
    values = {"device": HARDWARE[hardware].device, "hardware": hardware, **cluster}
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, **values))


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_shipped_files_say_what_their_nodes_are(path: Path) -> None:
    config = load(path)
    assert (config.node_hardware is None) == config.simulated
    if not config.simulated:
        assert config.cluster.hardware is not None
        assert path.stem.startswith(config.cluster.hardware.partition("_")[0] + "_")


@pytest.mark.parametrize("hardware", HARDWARE)
def test_a_page_names_its_hardware_and_no_other(hardware: str) -> None:
    config = load(
        CONFIGS / ("a3_256die.toml" if HARDWARE[hardware].device == NPU else "h20_128gpu_math_lighteval.toml")
    )
    per_node = HARDWARE[hardware].dies_per_node
    dies = config.cluster.nodes * config.cluster.dies_per_node
    config = on(config, hardware, nodes=dies // per_node, dies_per_node=per_node)
    page = " ".join(as_text(make_plan(subject(config), search=False)).split())
    assert page.count(HARDWARE[hardware].name) == 2
    others = {other.name for other in HARDWARE.values()} - {HARDWARE[hardware].name}
    assert not [name for name in others if name in page]
    assert f"for each of {dies // HARDWARE[hardware].dies_per_device} devices" in page


def test_hardware_that_the_file_describes_is_planned_as_that_of_the_same_figures() -> None:
    named = load(CONFIGS / "a3_256die.toml")
    a3 = HARDWARE["a3_128"]
    rates = {name: float(a3.figures[name]) for name in ("tflops_bf16", "memory_gb_s", "node_link_gb_s", "network_gb_s")}
    described = dataclasses.replace(
        named,
        cluster=dataclasses.replace(
            named.cluster,
            hardware="custom",
            hbm_gib_per_die=float(a3.offered_gib),
            host_memory_gib_per_node=float(a3.host_gib),
        ),
        hardware=CustomHardware(name="Ascend 910X", dies_per_device=2, **rates),
    )
    pages = [as_text(make_plan(subject(config), search=False)) for config in (named, described)]
    assert "(Ascend 910X)" in pages[1] and a3.name not in pages[1]
    figures = [re.findall(r"^  \S.*  \S+.*$", page, re.MULTILINE) for page in pages]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("hardware", [name for name in HARDWARE if HARDWARE[name].device == NPU])
def test_show_names_it_too(hardware: str) -> None:
    dies = HARDWARE[hardware].dies_per_node
    config = on(load(CONFIGS / "a3_256die.toml"), hardware, nodes=256 // dies, dies_per_node=dies)
    assert f"cluster: 256 dies, {256 // dies} x {dies} ({HARDWARE[hardware].name})" in show(derive_run(config))


@pytest.mark.parametrize("page", ["docs/PLAN.md", "docs/zh/PLAN.md"])
def test_the_documented_figures_are_those_that_are_planned_with(page: str) -> None:
    lines = (CONFIGS.parent / page).read_text(encoding="utf-8").splitlines()
    assert [row for row in list(hardware_table())[2:] if row not in lines] == []


def test_the_page_says_where_each_figure_is_from() -> None:
    lines = (CONFIGS.parent / "docs/PLAN.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in source_table() if row not in lines] == []
