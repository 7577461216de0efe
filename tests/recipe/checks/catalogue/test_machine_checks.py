# SPDX-License-Identifier: Apache-2.0
"""P, E, N: each check passes on a machine that is right, and finds what was spoilt on it."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipe.checks.facts.dies import DieFacts
from recipe.checks.facts.machine import Process
from recipe.sizes import size_text

GIB = 2**30


def _edit_manifest(world: Any, **values: Any) -> None:
    world.edit_json(world.upstream / "MANIFEST.json", **values)


def _second_copy(world: Any) -> None:
    (world.root / "site" / "verl").mkdir(parents=True)
    (world.root / "site" / "verl" / "__init__.py").touch()
    world.set_machine(path=(str(world.root / "site"),))


def _real_upstream(world: Any) -> None:
    from recipe.runfile.paths import upstream_dir

    world.upstream = upstream_dir()


def _without_a_function(world: Any) -> None:
    """verl with an empty module where a function is patched."""
    tree = world.root / "other" / "verl"
    tree.mkdir(parents=True)
    for name in ("__init__.py", "protocol.py"):
        (tree / name).touch()
    world.upstream = tree.parent


def _read_only(world: Any) -> None:
    (world.root / "runs").write_text("a file where a directory belongs")


def _limit(**values: int) -> Any:
    return lambda world: world.set_machine(limits={**world.machine.limits, **values})


def _environ(**values: str) -> Any:
    return lambda world: world.set_environ(**values)


def _machine(**values: Any) -> Any:
    return lambda world: world.set_machine(**values)


def _offered(*gib: float) -> Any:
    """Dies on which torch is offered so much."""
    return lambda world: world.more.update(dies=DieFacts(tuple(int(each * GIB) for each in gib)))


def _changed_file(world: Any) -> None:
    (world.upstream / "verl" / "__init__.py").write_text("edited")


# id -> (the run that is right, how it is spoilt, level, part of what is said)
TRIPS = {
    "P001": ("cluster", _machine(python=(3, 9, 1)), "error", "Python 3.9.1"),
    "P002": (
        "laptop",
        lambda world: world.set_machine(packages={**world.machine.packages, "ray": "2.9.0"}),
        "error",
        "ray 2.9.0 (pinned: ",
    ),
    "P003": ("cluster", lambda world: (world.upstream / "MANIFEST.json").unlink(), "error", "was not made by sync"),
    "P004": ("cluster", _changed_file, "error", "changed: verl/__init__.py"),
    "P005": ("cluster", lambda world: _edit_manifest(world, profile="sim"), "error", "profile sim"),
    "P006": ("synced", _without_a_function, "error", "verl_patches.protocol"),
    "P007": ("cluster", _second_copy, "warning", "verl also lies in"),
    "P008": ("cluster", _machine(packages={}), "error", "torch-npu is not installed"),
    "E002": ("cluster", _environ(VLLM_DP_SIZE="64"), "warning", "VLLM_DP_SIZE=64"),
    "E003": ("cluster", _environ(WORLD_SIZE="8"), "warning", "WORLD_SIZE=8"),
    "E004": ("cluster", _environ(ASCEND_RT_VISIBLE_DEVICES="0,1"), "error", "shows 2 dies"),
    "E005": ("cluster", _environ(RAY_EXPERIMENTAL_NOSET_ASCEND_RT_VISIBLE_DEVICES="1"), "error", "NOSET"),
    "E006": ("cluster", _environ(RAY_ADDRESS="10.0.0.9:6379"), "warning", "RAY_ADDRESS=10.0.0.9:6379"),
    "E007": ("cluster", _environ(https_proxy="http://proxy:3128", no_proxy="localhost"), "warning", "https_proxy"),
    "E008": ("cluster", lambda world: world.set(cluster_interface="bond0"), "error", "eth0 (10.1.1.1)"),
    "E009": ("cluster", _environ(VLLM_ENABLE_MC2="1"), "warning", "VLLM_ENABLE_MC2"),
    "E010": ("cluster", _machine(environ={}), "error", "ASCEND_HOME_PATH"),
    "E011": ("cluster", _environ(ASCEND_LAUNCH_BLOCKING="1"), "warning", "ASCEND_LAUNCH_BLOCKING=1"),
    "E012": ("cluster", _environ(RANK_TABLE_FILE="/etc/ranks.json"), "error", "RANK_TABLE_FILE"),
    "E013": ("cluster", _environ(LD_PRELOAD="/usr/lib/libjemalloc.so.9"), "warning", "libjemalloc.so.9"),
    "E014": ("cluster", _environ(TORCH_DEVICE_BACKEND_AUTOLOAD="0"), "warning", "AUTOLOAD=0"),
    "N001": ("cluster", _machine(dies=8), "error", "8 of /dev/davinci0"),
    "N002": ("cluster", _machine(driver=None), "error", "version.info"),
    "N003": ("cluster", _machine(memory=1000 * GIB, memory_available=900 * GIB), "error", "1000.0 GiB"),
    "N004": ("cluster", _machine(free_bytes=lambda path: 5 * GIB), "error", "5.0 GiB free for"),
    "N005": ("cluster", _machine(free_bytes=lambda path: 17_000 * GIB), "error", "4 checkpoints of 874"),
    "N006": ("cluster", _machine(shm_free=64 * 2**20), "error", "64.0 MiB free in /dev/shm"),
    "N007": ("cluster", _limit(nofile=1024), "error", "ulimit -n is 1024"),
    "N008": ("cluster", _limit(nproc=4096), "warning", "ulimit -u is 4096"),
    "N009": ("cluster", _limit(memlock=65536), "warning", "ulimit -l is 64 KiB"),
    "N010": ("cluster", _machine(listening=frozenset({22, 6379, 61003})), "error", "port 61003 (HCCL"),
    "N011": ("cluster", _machine(ephemeral_ports=(32768, 65000)), "warning", "61000 to 610"),
    "N012": ("cluster", _machine(processes=(Process(77, "raylet", "a3-x"),)), "warning", "run a3-x (pid 77)"),
    "N013": ("cluster", _machine(processes=(Process(78, "gcs_server", ""),)), "warning", "another Ray (pid 78)"),
    "N014": ("cluster", _machine(clock_set=False), "warning", "not synchronised"),
    "N015": ("cluster", _read_only, "error", "is not a directory"),
    "N016": ("cluster", _machine(cpus=8), "warning", "8 cores for 16 dies"),
    "N018": ("cluster", _offered(60.95), "error", "planned for dies of 61.3 GiB"),
    "D013": ("tier3", lambda world: world.set_machine(packages={}), "error", "without the package math_verify"),
    "D012": ("cluster", _machine(cpus=4), "warning", "workers = 16 on 4 cores"),
}


@pytest.fixture
def synced(laptop: Any) -> Any:
    """The laptop with the upstream sources that are really there."""
    _real_upstream(laptop)
    return laptop


@pytest.fixture
def tier3(cluster: Any) -> Any:
    """The published run with a grader that it asks, which is installed."""
    cluster.set(reward=replace(cluster.config.reward, tier3="math_verify"))
    cluster.set_machine(packages={**cluster.machine.packages, "math-verify": "0.9.0"})
    return cluster


@pytest.mark.parametrize("id", TRIPS)
def test_a_spoilt_machine_is_found_and_a_right_one_is_not(id: str, request: pytest.FixtureRequest) -> None:
    base, spoil, level, said = TRIPS[id]
    world = request.getfixturevalue(base)
    assert world.findings(id) == []
    spoil(world)
    findings = world.findings(id)
    assert findings and {finding.level for finding in findings} == {level}
    assert any(said in f"{finding.found}; {finding.expected}" for finding in findings), findings
    assert all(finding.expected and finding.fix for finding in findings)


def test_p005_other_pins_than_those_of_the_tree(cluster: Any) -> None:
    _edit_manifest(cluster, pins="0" * 64)
    assert "other pins" in cluster.findings("P005")[0].found


def test_p007_an_adopted_tree_is_no_second_copy(cluster: Any) -> None:
    _second_copy(cluster)
    (finding,) = cluster.findings("P007")
    place = cluster.root / "site" / "verl"
    assert f"python -m recipe sync --adopt {place}" in finding.fix
    entry = {"path": str(place), "compared": True, "line": False, "accepted": {}, "own": {}}
    _edit_manifest(cluster, adopted={"verl": entry})
    assert cluster.findings("P007") == []
    _edit_manifest(cluster, adopted={"verl": entry | {"path": str(cluster.root / "another")}})
    assert len(cluster.findings("P007")) == 1


def test_p004_an_adopted_tree_may_be_linked_and_may_not_change(cluster: Any) -> None:
    theirs = cluster.root / "theirs"
    (cluster.upstream / "verl").rename(theirs)
    (cluster.upstream / "verl").symlink_to(theirs)
    assert cluster.findings("P004") == []  # the package is the link, not the file
    (theirs / "more.py").touch()
    entry = {"path": str(theirs), "compared": True, "line": False, "accepted": {}, "own": {}}
    _edit_manifest(cluster, adopted={"verl": entry})
    (finding,) = cluster.findings("P004")
    assert "not ours: verl/more.py" in finding.found and "--adopt" in finding.fix


def test_p006_a_package_that_is_not_there_is_no_pass(synced: Any) -> None:
    tree = synced.root / "half"
    (tree / "verl").mkdir(parents=True)
    source = synced.upstream
    for name in os.listdir(source):
        if name not in ("vllm_ascend", "verl", "MANIFEST.json"):
            (tree / name).symlink_to(source / name)
    (tree / "verl").rmdir()
    (tree / "verl").symlink_to(source / "verl")
    synced.upstream = tree
    (finding,) = synced.findings("P006")
    assert finding.level == "error" and "vllm_ascend is not in" in finding.found


def test_p002_without_the_file_of_pins_the_check_says_so(cluster: Any) -> None:
    cluster.repo = cluster.root
    (finding,) = cluster.findings("P002")
    assert finding.level == "not run" and "requirements.txt is not there" in finding.found


def test_p002_looks_at_the_pins_of_the_device(cluster: Any) -> None:
    cluster.repo = cluster.root
    (cluster.root / "requirements.txt").write_text("torch==2.5.1\ntorch-npu==2.5.1.post1\n")
    cluster.set_machine(packages={"torch": "2.5.1+cpu", "torch-npu": "2.5.1.post1"})
    assert cluster.findings("P002") == []
    cluster.set_machine(packages={"torch": "2.6.0"})
    assert "torch 2.6.0 (pinned: 2.5.1); torch-npu is missing" in cluster.findings("P002")[0].found
    cluster.set(cluster_device="cuda")
    assert [finding.level for finding in cluster.findings("P002")] == ["not run"]


def test_p008_the_simulated_device_beside_the_real_one(laptop: Any) -> None:
    laptop.set_machine(packages={"npu-sim": "0.1.0", "torch-npu": "2.5.1"})
    assert "beside torch-npu" in laptop.findings("P008")[0].found


def test_e008_loopback_between_nodes_is_refused(cluster: Any) -> None:
    cluster.set(cluster_interface="lo")
    assert "an interface to the other nodes" in cluster.findings("E008")[0].expected


def test_n001_counts_gpus_where_they_are_the_device(cluster: Any) -> None:
    cluster.set(cluster_device="cuda", cluster_dies_per_node=8)
    assert "0 of /dev/nvidia0" in cluster.findings("N001")[0].found
    cluster.set_machine(gpus=8)
    assert cluster.findings("N001") == []


def test_n010_looks_at_the_ports_that_the_launcher_was_given(cluster: Any) -> None:
    cluster.set_machine(listening=frozenset({6381}))
    assert cluster.findings("N010")
    cluster.more["base_port"] = 7000
    assert cluster.findings("N010") == []
    cluster.set_machine(listening=frozenset({7001}))
    assert "port 7001" in cluster.findings("N010")[0].found


def test_e007_a_head_that_the_proxy_leaves_alone_passes(cluster: Any) -> None:
    cluster.set_environ(https_proxy="http://proxy:3128", no_proxy="localhost,10.1.1.1")
    assert cluster.findings("E007") == []


def test_n003_little_free_memory_is_a_warning(cluster: Any) -> None:
    cluster.set_machine(memory_available=200 * GIB)
    assert [finding.level for finding in cluster.findings("N003")] == ["warning"]


def size_in(text: str) -> str:
    """The first size that is written there."""
    return re.findall(r"[\d.]+ (?:B|[KMG]iB)", text)[0]


@pytest.mark.parametrize(
    ("id", "short"),
    [("N003", {"memory": 1899 * GIB}), ("N003", {"memory_available": 1599 * GIB}), ("N004", 20 * GIB - 1),
     ("N005", None), ("N006", 16 * GIB - 1), ("M004", {"memory": 1})],
    ids=str,
)  # fmt: skip
def test_what_is_there_and_what_is_wanted_are_never_the_same_text(id: str, short: Any, cluster: Any) -> None:
    """A byte or a sixteenth too little is still another size."""
    if id == "N005":
        short = 2 * 14 * cluster.facts.parameters - 1
    if id == "M004":
        cluster.set(cluster_host_memory_gib_per_node=None)
        short = {"memory": int(cluster.facts.planned_memory.host.total) - 1}
    values = short if isinstance(short, dict) else {"free_bytes": lambda path: short, "shm_free": short}
    cluster.set_machine(**values)
    (finding,) = cluster.findings(id)
    assert size_in(finding.found) != size_in(finding.expected), finding.line


def test_n005_a_small_models_checkpoints_on_a_small_disk(laptop: Any) -> None:
    laptop.set(run_save_every=1)
    laptop.set_machine(free_bytes=lambda path: 4096)
    (finding,) = laptop.findings("N005")
    assert finding.found.startswith("4.0 KiB free for") and finding.expected.startswith("54.1 MiB: 4 checkpoints")


def test_m004_and_n003_take_the_memory_of_this_node_where_the_run_file_gives_none(cluster: Any) -> None:
    cluster.set(cluster_host_memory_gib_per_node=None)
    assert cluster.findings("M004") == cluster.findings("N003") == []
    cluster.set_machine(memory=700 * GIB, memory_available=600 * GIB)
    (finding,) = cluster.findings("M004")
    assert finding.level == "error" and finding.expected == "at most 700.0 GiB"
    cluster.set_machine(memory=2000 * GIB, memory_available=100 * GIB)
    assert [finding.level for finding in cluster.findings("N003")] == ["warning"]


def test_m004_elsewhere_only_warns_of_what_such_nodes_usually_have(cluster: Any) -> None:
    cluster.set(cluster_host_memory_gib_per_node=None)
    cluster.node = False
    assert cluster.findings("M004") == []
    cluster.set(cluster_hardware="a2_64", cluster_nodes=32, cluster_dies_per_node=8, actor_optimizer="offloaded")
    wanted = cluster.facts.planned_memory.host.total / GIB
    assert wanted < 1536 and cluster.findings("M004") == []
    cluster.set(cluster_hardware="a2_64", cluster_nodes=16, cluster_dies_per_node=16)
    (finding,) = cluster.findings("M004")
    assert finding.level == "warning" and finding.expected == "at most 1536.0 GiB, as such nodes have"


def test_m004_of_a_machine_that_simulates_elsewhere_nothing_is_known(laptop: Any) -> None:
    laptop.node = False
    (finding,) = laptop.findings("M004")
    assert finding.level == "not run" and "of them pinned" in finding.found


def test_what_cannot_be_read_is_no_pass(cluster: Any) -> None:
    cluster.set_machine(memory=None, shm_free=None, clock_set=None, ephemeral_ports=None, free_bytes=lambda path: None)
    for id in ("N003", "N004", "N005", "N006", "N011", "N014"):
        assert [finding.level for finding in cluster.findings(id)] == ["not run"], id


def test_nodes_other_than_the_head_do_not_need_its_ports(cluster: Any) -> None:
    cluster.set_machine(listening=frozenset({6379}))
    assert cluster.findings("N010")
    cluster.set_machine(interfaces={"eth0": "10.1.1.2"}, host="node1")
    assert cluster.findings("N010") == []


def test_the_manifest_of_the_fixture_is_one_that_sync_would_read(cluster: Any) -> None:
    assert json.loads((Path(cluster.upstream) / "MANIFEST.json").read_text())["state"] == "ours"
    _edit_manifest(cluster, state="pristine")
    assert "without our changes" in cluster.findings("P003")[0].found


def test_n018_the_least_of_the_dies_counts_and_drivers_may_differ_a_little(cluster: Any) -> None:
    for gib in (61.25, 61.27, 64.0, 140.0):
        _offered(61.27, gib)(cluster)
        assert cluster.findings("N018") == []
    _offered(61.27, 32.0)(cluster)
    (finding,) = cluster.findings("N018")
    assert finding.expected == "at most 32.0 GiB, which is what torch is offered here"


def test_n018_a_phase_that_needs_more_than_is_offered_is_refused_however_little(cluster: Any) -> None:
    cluster.set(actor_log_prob_micro_batch_tokens=8 * 3072, train_loss_mode="vanilla")
    needed = cluster.facts.planned_memory
    most = needed.worst("log_prob").total("log_prob") + needed.dies[0].outside_total
    cluster.set(cluster_hbm_gib_per_die=(most + 2**20) / GIB)
    _offered((most + 2**20) / GIB)(cluster)
    assert cluster.findings("N018") == []
    _offered((most - 2**20) / GIB)(cluster)
    (finding,) = cluster.findings("N018")
    assert finding.level == "error" and finding.found.startswith("log_prob: ")


@pytest.mark.parametrize(
    ("hardware", "name", "gib", "expected"),
    [
        ("a3_128", "Ascend910B3", 60.95, '"a2_64"'),
        ("a2_64", "Ascend910_9382", 61.27, '"a3_128"'),
        ("a3_128", "Ascend910B4", 29.5, '"custom"'),
        ("a3_128", "Ascend310P3", 61.27, '"custom"'),
        ("h20_96", "NVIDIA H20-3e", 139.8, '"h20_141"'),
        ("h20_141", "NVIDIA H200", 139.8, '"h200_141"'),
        ("h20_96", "NVIDIA H100 80GB HBM3", 79.2, '"h100_80"'),
        ("h100_80", "NVIDIA H100 PCIe", 79.2, '"custom"'),
    ],
)
def test_n018_a_node_of_another_kind_is_one_line(
    hardware: str, name: str, gib: float, expected: str, cluster: Any
) -> None:
    device = "npu" if hardware.startswith(("a2", "a3")) else "cuda"
    cluster.set(cluster_device=device, cluster_hardware=hardware, cluster_dies_per_node=8)
    cluster.set_machine(dies=16, gpus=4)
    cluster.more["dies"] = DieFacts((int(gib * GIB),) * 8, name)
    (finding,) = cluster.findings("N018")
    assert finding.level == "error" and finding.expected == expected
    assert finding.found == f'[cluster] hardware = "{hardware}" on a node of 8 x {name} of {size_text(int(gib * GIB))}'
    assert cluster.findings("N001") is None


def test_n018_dies_of_the_kind_that_are_short_of_memory_are_told_as_such(cluster: Any) -> None:
    cluster.more["dies"] = DieFacts((int(58.0 * GIB),) * 16, "Ascend910_9382")
    (finding,) = cluster.findings("N018")
    assert finding.expected == "at most 58.0 GiB, which is what torch is offered here"


def test_n018_dies_that_the_run_file_describes_itself_may_have_any_name(cluster: Any) -> None:
    cluster.set(cluster_hardware="custom", cluster_hbm_gib_per_die=61.0, hardware_name="mine", hardware_tflops_bf16=1.0)
    cluster.set(hardware_memory_gb_s=1.0, hardware_node_link_gb_s=1.0, hardware_network_gb_s=1.0)
    cluster.more["dies"] = DieFacts((int(61.0 * GIB),) * 16, "Ascend910B3")
    assert cluster.findings("N018") == []


def test_n018_cannot_tell_where_torch_does_not(cluster: Any) -> None:
    for dies in (None, DieFacts(problem="no module named torch_npu"), DieFacts(failed="it broke")):
        cluster.more["dies"] = dies
        (finding,) = cluster.findings("N018")
        assert finding.level == "not run" and "torch does not say" in finding.found


def test_p009_a_tracker_without_its_package_or_its_token(cluster: Any) -> None:
    assert cluster.findings("P009") is None
    cluster.set(run_trackers=["tensorboard", "wandb"])
    assert [finding.fix for finding in cluster.findings("P009")] == [
        "run: pip install tensorboard",
        "run: pip install wandb",
    ]
    cluster.set_machine(packages={**cluster.machine.packages, "tensorboard": "2.20.0", "wandb": "0.22.0"})
    assert cluster.findings("P009") == []
    cluster.set(run_trackers_online=True)
    (finding,) = cluster.findings("P009")
    assert finding.level == "error" and finding.found == "trackers_online, and no WANDB_API_KEY for wandb"
    cluster.set_environ(WANDB_API_KEY="abc")
    assert cluster.findings("P009") == []
    cluster.set_machine(packages={}, interfaces={"eth0": "10.1.1.2"})  # a worker, which records nothing
    assert cluster.findings("P009") is None
