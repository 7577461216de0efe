# SPDX-License-Identifier: Apache-2.0
"""What a run file says of its nodes, and what follows from it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import CUDA, GIB, HARDWARE, MIB, NPU, RunConfig, identified

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
# What torch calls one, as logs have it.
TORCH_NAMES = {
    "a2_64": "Ascend910B3",
    "a3_128": "Ascend910_9382",
    "h20_96": "NVIDIA H20",
    "h20_141": "NVIDIA H20-3e",
    "h100_80": "NVIDIA H100 80GB HBM3",
    "h200_141": "NVIDIA H200",
    "a100_80": "NVIDIA A100-SXM4-80GB",
}
CUSTOM_TABLE = """
[hardware]
name = "Ascend A2, 32 GB"
tflops_bf16 = 280
memory_gb_s = 800
node_link_gb_s = 196
network_gb_s = 12.5
"""
CUSTOM_CLUSTER = """hardware = "custom"
dies_per_node = 8
hbm_gib_per_die = 29.5
host_memory_gib_per_node = 900
"""
EVERY_FIGURE = (
    "[cluster] dies_per_node, [cluster] hbm_gib_per_die, [cluster] host_memory_gib_per_node, [hardware] name, "
    "[hardware] tflops_bf16, [hardware] memory_gb_s, [hardware] node_link_gb_s, [hardware] network_gb_s"
)


def changed(config: RunConfig, **cluster: Any) -> RunConfig:
    return dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, **cluster))


@pytest.fixture()
def written(tmp_path: Path) -> Any:
    """a3_256die.toml with other lines for its hardware and dies, and more sections."""

    def write(cluster: str = "", more: str = "") -> RunConfig:
        text = (CONFIGS / "a3_256die.toml").read_text(encoding="utf-8")
        file = tmp_path / "run.toml"
        file.write_text(
            text.replace('hardware = "a3_128"\nnodes = 16\ndies_per_node = 16\n', f"nodes = 16\n{cluster}\n") + more
        )
        return load(file)

    return write


@pytest.mark.parametrize("name", HARDWARE)
def test_each_has_its_figures_and_where_they_are_from(name: str) -> None:
    hardware = HARDWARE[name]
    assert len(hardware.figures) == 6
    assert all(figure > 0 and figure.source for figure in hardware.figures.values())
    assert hardware.label_gb is not None
    assert 0.95 * hardware.label_gb * 1e9 < hardware.offered_gib * GIB
    assert hardware.offered_gib < hardware.label_gb
    assert hardware.network_gb_s <= hardware.node_link_gb_s < hardware.memory_gb_s
    assert name.partition("_")[0].upper() in hardware.name.replace(",", "").split()


def test_no_two_are_called_the_same() -> None:
    assert len({hardware.name for hardware in HARDWARE.values()}) == len(HARDWARE)


@pytest.mark.parametrize("name", HARDWARE)
def test_a_die_is_told_by_its_name_and_memory(name: str) -> None:
    total = int(HARDWARE[name].offered_gib * GIB)
    assert identified(TORCH_NAMES[name], total) == name
    assert identified(TORCH_NAMES[name], total // 2) is None
    assert identified(f"{TORCH_NAMES[name]} PCIe", total) is None


def test_cards_of_one_name_are_told_by_their_memory() -> None:
    assert identified("NVIDIA H20", int(95.22 * GIB)) == "h20_96"
    assert identified("NVIDIA H20", int(139.8 * GIB)) == "h20_141"


@given(st.text(), st.integers(min_value=0, max_value=2**50))
def test_any_name_and_memory_is_one_of_them_or_none(name: str, total: int) -> None:
    assert identified(name, total) in {None, *HARDWARE}


def test_the_hardware_gives_the_memory_unless_the_file_states_it() -> None:
    a3 = load(CONFIGS / "a3_256die.toml")
    assert a3.hbm_bytes_per_die == int(61.27 * GIB)
    assert changed(a3, hardware="a2_64").hbm_bytes_per_die == int(60.96 * GIB)
    assert changed(a3, hardware="a2_64", hbm_gib_per_die=32.0).hbm_bytes_per_die == 32 * GIB
    assert a3.host_gib_per_node == 1862
    assert changed(a3, host_memory_gib_per_node=900.0).host_gib_per_node == 900
    h20 = load(CONFIGS / "h20_128gpu_math_lighteval.toml")
    assert h20.hbm_bytes_per_die == int(139.80 * GIB)


def test_a_node_has_all_of_its_dies_unless_the_file_says_fewer(written: Any) -> None:
    assert written('hardware = "a3_128"').cluster.dies_per_node == 16
    assert written('hardware = "a2_64"').cluster.dies_per_node == 8
    assert written('hardware = "a2_64"\ndies_per_node = 4').cluster.dies_per_node == 4


def test_a_node_has_no_more_dies_than_such_nodes_have(written: Any) -> None:
    message = r"dies_per_node is 16; expected at most 8, the dies of a node of a2_64 \(Ascend A2, 64 GB\)"
    with pytest.raises(ConfigError, match=message):
        written('hardware = "a2_64"\ndies_per_node = 16')


@pytest.mark.parametrize(
    ("device", "known"), [(NPU, "a2_64, a3_128"), (CUDA, "h20_96, h20_141, h100_80, h200_141, a100_80")]
)
def test_hardware_is_never_assumed(device: str, known: str, tmp_path: Path) -> None:
    text = (CONFIGS / "a3_256die.toml").read_text(encoding="utf-8").replace('hardware = "a3_128"\n', "")
    file = tmp_path / "run.toml"
    file.write_text(text.replace('device = "npu"', f'device = "{device}"'), encoding="utf-8")
    with pytest.raises(ConfigError) as refused:
        load(file)
    assert f"key 'hardware' is missing with device = \"{device}\"; expected one of {known}, custom; on a node" in str(
        refused.value
    )


@pytest.mark.parametrize(
    ("old", "new"), [("a2", "a2_64"), ("a3", "a3_128"), ("h20", "h20_96"), ("h20_141gb", "h20_141")]
)
def test_a_name_of_before_is_refused_with_the_one_of_now(old: str, new: str, written: Any) -> None:
    with pytest.raises(ConfigError, match=rf"hardware is '{old}'; expected one of .*; did you mean '{new}'\?$"):
        written(f'hardware = "{old}"')


def test_a_simulated_die_is_no_hardware() -> None:
    sim = load(CONFIGS / "sim.toml")
    assert sim.node_hardware is None and sim.host_gib_per_node is None
    assert sim.hbm_bytes_per_die == 256 * MIB


def test_hardware_of_another_device_is_refused(written: Any) -> None:
    with pytest.raises(
        ConfigError, match='hardware = "h20_96" with device = "npu"; expected one of a2_64, a3_128, custom'
    ):
        written('hardware = "h20_96"')


def test_nodes_without_a_name_are_what_the_file_says(written: Any) -> None:
    config = written(CUSTOM_CLUSTER, CUSTOM_TABLE)
    nodes = config.node_hardware
    assert (nodes.name, nodes.dies_per_node, nodes.dies_per_device) == ("Ascend A2, 32 GB", 8, 1)
    assert (nodes.tflops_bf16, nodes.memory_gb_s, nodes.node_link_gb_s, nodes.network_gb_s) == (280, 800, 196, 12.5)
    assert (config.hbm_bytes_per_die, config.host_gib_per_node) == (int(29.5 * GIB), 900)
    assert {figure.source for figure in nodes.figures.values()} == {"the run file"}


def test_all_figures_that_are_missing_are_named_in_a_line(written: Any) -> None:
    with pytest.raises(ConfigError) as refused:
        written('hardware = "custom"')
    assert str(refused.value).endswith(f'hardware = "custom" needs {EVERY_FIGURE}; take them from a data sheet')


@pytest.mark.parametrize("line", [*CUSTOM_CLUSTER.split("\n")[1:-1], *CUSTOM_TABLE.split("\n")[2:-1]])
def test_each_figure_that_is_missing_is_named(line: str, written: Any) -> None:
    key = line.partition(" ")[0]
    with pytest.raises(ConfigError, match=rf'"custom" needs \[(cluster|hardware)\] {key}; take'):
        written(CUSTOM_CLUSTER.replace(line, ""), CUSTOM_TABLE.replace(line, ""))


def test_figures_go_with_no_other_hardware(written: Any) -> None:
    with pytest.raises(ConfigError, match=r'\[hardware\] goes with \[cluster\] hardware = "custom"; remove one'):
        written('hardware = "a2_64"', CUSTOM_TABLE)


def test_a_simulated_run_has_none_of_them(tmp_path: Path) -> None:
    text = (CONFIGS / "sim.toml").read_text(encoding="utf-8")
    file = tmp_path / "run.toml"
    file.write_text(text.replace("[cluster]\n", '[cluster]\nhardware = "custom"\n'), encoding="utf-8")
    with pytest.raises(ConfigError, match='hardware = "custom" with device = "sim"; expected none'):
        load(file)
