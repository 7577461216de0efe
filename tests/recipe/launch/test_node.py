# SPDX-License-Identifier: Apache-2.0
"""Which node this is, what it listens on, what Ray is told, and whose token is taken."""

from __future__ import annotations

import dataclasses
import itertools
import json
import socket
from pathlib import Path

import psutil
import pytest

from recipe.launch.network import address_of, interface_of, require_free, source_address
from recipe.launch.node import code_digest, comparable, find_place, present, require_free_ports
from recipe.launch.own_ray import own_authentication
from recipe.launch.ray_node import address_environment, authentication, start_command
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.paths import REPO, RunPaths
from recipe.runfile.ports import NodePorts
from recipe.runfile.schema import RunConfig

SIM = load(REPO / "configs" / "sim.toml")
TWO = dataclasses.replace(SIM, cluster=dataclasses.replace(SIM.cluster, nodes=2, head="127.0.0.2"))
TOKEN = b"the token of this test"
NPU = load(REPO / "configs" / "a3_256die.toml")


def own_address() -> str:
    """An address of this machine that is not loopback, or loopback where there is no other."""
    addresses = [
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET and psutil.net_if_stats()[name].isup and not entry.address.startswith("127.")
    ]
    return addresses[0] if addresses else "127.0.0.1"


def test_the_node_with_the_head_s_address_leads() -> None:
    place = find_place(TWO)
    assert (place.leads, place.address, place.name, place.interface) == (True, "127.0.0.2", "127.0.0.2", "lo")
    worker = find_place(TWO, worker=True, address="127.0.0.3", name="second")
    assert (worker.leads, worker.head, worker.address, worker.name) == (False, "127.0.0.2", "127.0.0.3", "second")


def test_a_worker_s_address_is_the_one_that_leads_to_the_head() -> None:
    # 192.0.2.1 is nobody's; the kernel says from where it would be reached, and nothing is sent.
    config = dataclasses.replace(NPU, cluster=dataclasses.replace(NPU.cluster, head="192.0.2.1"))
    try:
        expected = source_address("192.0.2.1")
    except LaunchError:  # a machine without any network says that instead
        with pytest.raises(LaunchError, match=r"no route from here to 192\.0\.2\.1 .*; name another --interface"):
            find_place(config)
        return
    place = find_place(config)
    assert (place.leads, place.address) == (False, expected)
    assert address_of(place.interface) == expected


def test_an_interface_is_found_by_each_of_its_addresses() -> None:
    assert interface_of("127.0.0.77") == interface_of("127.0.0.1") == "lo"
    assert address_of(interface_of(own_address())) == own_address()


@pytest.mark.parametrize("config", [TWO, NPU])
def test_what_is_found_to_lead_to_the_head_is_used_by_what_connects(config: RunConfig) -> None:
    config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, interface="bond0"))
    paths = RunPaths(Path("/runs/x"), "x-1", Path("/tmp/x"))
    assert derive_run(config, paths=paths, interface="eth7").environment["GLOO_SOCKET_IFNAME"] == "eth7"
    assert address_environment("10.0.0.7", 2)["VLLM_HOST_IP"] == "10.0.0.7"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"interface": "eth77"}, "interface eth77 does not exist; this machine has .*lo"),
        ({"address": "192.0.2.9", "worker": True}, "192.0.2.9 is not an address of this machine, which has .*lo"),
        ({"head": "no-such-host.invalid"}, "no-such-host.invalid: no IPv4 address is known for this name"),
        ({"head": "localhost"}, r"localhost means 127\.0\.0\.1, which no other node can reach; give the head's"),
        ({"name": "a/b"}, "node name 'a/b': use letters"),
        ({"address": "127.0.0.3"}, "--address 127.0.0.3 is not the head's address 127.0.0.2; leave it out on the head"),
    ],
)
def test_a_place_that_cannot_be(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        find_place(TWO, **options)  # type: ignore[arg-type]


def test_npus_on_several_nodes_cannot_meet_on_loopback() -> None:
    with pytest.raises(ConfigError, match=r"address is 127\.0\.0\.1, which no other node can reach"):
        find_place(NPU, head="127.0.0.1")


def test_a_busy_port_is_named_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(LaunchError) as caught:
            require_free({port: "Ray, GCS"})
    assert str(caught.value).startswith(f"port {port} (Ray, GCS) is in use by ")
    assert f"(pid {psutil.Process().pid})" in str(caught.value)
    require_free({port: "Ray, GCS"})


def test_ports_that_overlap_are_refused() -> None:
    place = find_place(TWO, ports=TWO.cluster.ray_port - 3)
    with pytest.raises(ConfigError, match="is meant for Ray, GCS and for Ray, agent, HTTP"):
        require_free_ports(TWO, place, dashboard=False)


def test_ray_is_told_everything_it_would_otherwise_choose(tmp_path: Path) -> None:
    place = find_place(TWO)
    command = start_command(TWO, "head", "127.0.0.2", place.ports, tmp_path, None, dashboard=True)
    options = dict(itertools.pairwise(command))
    assert options["--node-ip-address"] == "127.0.0.2" and options["--temp-dir"] == str(tmp_path)
    assert json.loads(options["--resources"]) == {"NPU": TWO.cluster.dies_per_node}
    assert (options["--include-dashboard"], options["--dashboard-host"]) == ("true", "127.0.0.1")
    named = {int(value) for option, value in options.items() if option.endswith("-port") and value.isdigit()}
    # 10001 is what Ray takes for its clients where nobody names another.
    assert named <= set(place.ports.purposes()) | {TWO.cluster.ray_port, TWO.cluster.dashboard_port}
    worker = start_command(TWO, "w", "127.0.0.3", place.ports, tmp_path, "127.0.0.2:6379", dashboard=False)
    assert "--head" not in worker and worker[worker.index("--address") + 1] == "127.0.0.2:6379"


def test_gpus_are_gpus(tmp_path: Path) -> None:
    config = load(REPO / "configs" / "h20_128gpu_math_lighteval.toml")
    command = start_command(config, "h", "10.0.0.1", NodePorts(7000, 8), tmp_path, None, dashboard=False)
    assert command[command.index("--num-gpus") + 1] == "8" and "--resources" not in command
    assert command[command.index("--include-dashboard") + 1] == "false"


@pytest.mark.parametrize(
    ("version", "demanded"), [("2.46.0", False), ("2.52.0", True), ("2.60.0", True), ("3.0.0", True)]
)
def test_the_token_is_demanded_where_ray_can(monkeypatch: pytest.MonkeyPatch, version: str, demanded: bool) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    expected = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "/t"} if demanded else {}
    assert authentication(Path("/t")) == expected
    own, another = own_authentication(), own_authentication()
    assert (own.pop("RAY_AUTH_TOKEN", "") != another.pop("RAY_AUTH_TOKEN", "")) == demanded
    assert own == another == ({"RAY_AUTH_MODE": "token"} if demanded else {})


def test_the_code_digest_sees_every_package_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.launch.node.REPO", tmp_path)
    digests = []
    for name in ("upstreams.toml", "recipe/a.py", "new_patches/__init__.py", "new_patches/a.patch", "recipe/a.py"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"{name} {len(digests)}")
        digests.append(code_digest())
    assert len(set(digests)) == len(digests)
    for name in ("notes.md", "new_patches/__init__.pyc", "runs.py"):
        (tmp_path / name).write_text("")
    assert code_digest() == digests[-1]


def test_nodes_compare_what_must_be_the_same() -> None:
    own = {"head": "10.9.9.9", "interface": "enp1", "wait_deadline_s": 60}
    other_node = dataclasses.replace(NPU, cluster=dataclasses.replace(NPU.cluster, **own))
    assert comparable(other_node, TOKEN) == comparable(NPU, TOKEN)
    longer = NPU.with_run(steps=NPU.run.steps + 1)
    assert comparable(longer, TOKEN) != comparable(NPU, TOKEN)
    node = present(NPU, find_place(NPU, head="192.0.2.1", address=own_address()), TOKEN)
    assert set(node.facts) == {"code", "Python", "Ray"} and node.dies == 16
