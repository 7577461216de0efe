# SPDX-License-Identifier: Apache-2.0
"""R: each check passes on a Ray that is right, and finds what was spoilt in it; a real Ray answers the questions."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recipe.checks.facts.cluster import RayFacts, RayHost, ask
from recipe.preflight import run

OPEN_RAY = """
import ray, sys
context = ray.init(address="local", num_cpus=2, resources={"NPU": 2}, include_dashboard=False, log_to_driver=False,
                   object_store_memory=80 * 2**20, _node_ip_address="127.0.0.1",
                   _temp_dir=sys.argv[1])
print(context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


def node(number: int, **values: Any) -> RayHost:
    usual: dict[str, Any] = {
        "address": f"10.1.1.{number + 1}",
        "host": f"node{number}",
        "resources": {"NPU": 16.0, "CPU": 320.0},
        "python": platform.python_version(),
        "ray": "2.60.0",
        "packages": {"torch": "2.5.1"},
        "upstream": "a3 ours 0123456789abcdef",
        "environ": {"VLLM_DP_SIZE": "128"},
    }
    return RayHost(**usual | values)


@pytest.fixture
def up(cluster: Any) -> Any:
    """The 256-die run with its Ray up on 16 nodes."""
    facts = RayFacts("", tuple(node(number) for number in range(16)), {"NPU": 256.0})
    cluster.more["ray"] = facts
    return cluster


def _one(**values: Any) -> Any:
    def spoil(world: Any) -> None:
        nodes = world.more["ray"].nodes
        world.more["ray"] = replace(world.more["ray"], nodes=(*nodes[:3], node(3, **values), *nodes[4:]))

    return spoil


def _ray(**values: Any) -> Any:
    def spoil(world: Any) -> None:
        world.more["ray"] = replace(world.more["ray"], **values)

    return spoil


def _one_less(world: Any) -> None:
    world.set(cluster_hosts=[f"node{number}" for number in range(16)])
    _ray(nodes=world.more["ray"].nodes[:15])(world)


# id -> (how it is spoilt, level, part of what is said)
TRIPS = {
    "R001": (_ray(problem="Failed to connect"), "error", "10.1.1.1:6379: Failed to connect"),
    "R002": (_one_less, "error", "15 nodes (missing: node15)"),
    "R003": (_one(resources={"NPU": 8.0}), "error", "node 10.1.1.4 offers 8 NPU"),
    "R004": (_ray(available={"NPU": 240.0}), "error", "240 of 256 NPU are free"),
    "R005": (_one(ray="2.41.0"), "error", "Ray 2.41.0 on 10.1.1.4"),
    "R006": (_one(missing=("/shared/DeepSeek-V3-Base-torch_dist",)), "error", "torch_dist is not on 10.1.1.4"),
    "R007": (_one(clock_offset_s=-30.0, clock_error_s=0.1), "warning", "10.1.1.4 is -30.00 s off"),
    "R008": (_one(upstream="not synced"), "error", "not synced on 10.1.1.4"),
    "R009": (_one(packages={"torch": "2.6.0"}), "error", "torch 2.6.0 on 10.1.1.4"),
    "R010": (_one(environ={"VLLM_DP_SIZE": "64"}), "error", "VLLM_DP_SIZE=64 on 10.1.1.4"),
    "R011": (lambda world: world.set(cluster_head="10.9.9.9"), "warning", "[cluster] head = 10.9.9.9"),
}


@pytest.mark.parametrize("id", TRIPS)
def test_a_spoilt_ray_is_found_and_a_right_one_is_not(id: str, up: Any) -> None:
    spoil, level, said = TRIPS[id]
    assert up.findings(id) == []
    spoil(up)
    findings = up.findings(id)
    assert findings and {finding.level for finding in findings} == {level}
    assert any(said in f"{finding.found}; {finding.expected}" for finding in findings), findings


@pytest.mark.parametrize("id", [one for one in TRIPS if one not in ("R001", "R010")])
def test_without_an_answer_no_check_passes(id: str, up: Any) -> None:
    up.more["ray"] = RayFacts("no answer within 90 s")
    assert [finding.level for finding in up.findings(id)] == ["not run"]


def test_a_node_that_does_not_answer_is_named(up: Any) -> None:
    _one(problem="worker died", packages=None, environ=None)(up)
    assert "node 10.1.1.4: worker died" in up.findings("R001")[0].found
    assert up.findings("R009") == []


def test_one_node_too_many(up: Any) -> None:
    _ray(nodes=(*up.more["ray"].nodes, node(16)))(up)
    assert up.findings("R002")[0].found == "17 nodes"


def test_where_nothing_listens_the_answer_comes_at_once(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        assert ask(address, [], [], tmp_path).problem == "nothing answers there (Connection refused)"


@pytest.mark.slow
def test_a_real_ray_is_asked_and_left_as_it_was(laptop: Any, tmp_path: Path) -> None:
    temp = tempfile.mkdtemp(prefix="pf", dir="/tmp")  # short: Ray puts sockets with a 107-byte limit under it
    environment = {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "VLLM_DP_SIZE": "7", "RAY_prestart_worker_first_driver": "0", "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    }  # fmt: skip
    ray = subprocess.Popen(
        [sys.executable, "-c", OPEN_RAY, temp],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        assert ray.stdout is not None
        address = ray.stdout.readline().strip()
        with pytest.MonkeyPatch.context() as patch:
            for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
                patch.setenv(name, environment[name])
            facts = ask(address, [str(tmp_path), "/nowhere"], ["torch"], laptop.upstream)
            host, _, port = address.partition(":")
            laptop.set(cluster_head=host, cluster_ray_port=int(port))
            report = run(laptop.config, node=False, cluster=True, machine=laptop.machine)
        assert facts.problem == ""
        (only,) = facts.nodes
        assert only.problem == "" and only.missing == ("/nowhere",) and only.upstream.startswith("sim ours")
        assert only.environ == {"VLLM_DP_SIZE": "7"} and abs(only.clock_offset_s) < 5
        assert facts.available is not None and facts.available["NPU"] == 2
        assert [finding.id for finding in report.errors] == ["R010"]
        assert ray.poll() is None
    finally:
        ray.communicate("", timeout=60)
        shutil.rmtree(temp, ignore_errors=True)
