# SPDX-License-Identifier: Apache-2.0
"""scripts/launch.sh on several hosts: network namespaces, each with its own interfaces, ports and host name.

On the loopback interface of one machine (tests/scripts/launch.bats) every address reaches everything, and nothing is
ever silent. Real Ray, and a stand-in for the trainer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recipe.launch.channel import SILENCE_S
from tests.scripts.hosts import Host, Hosts
from tests.scripts.nodes import end_of, stand_in_python, until

pytestmark = [pytest.mark.slow, pytest.mark.hosts]
# What three dies can share.
THREE = {"nodes": "3", "dies_per_node": "1", "prompts_per_step": "12", "expert_parallel": "1"}
TWO = {"nodes": "2", "dies_per_node": "1", "head": '"10.77.0.1"'}
Make = Callable[[int], Hosts]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes hosts; at the end no process is on any of them, but what a test has left of its launchers."""
    made: list[Hosts] = []

    def hosts(count: int) -> Hosts:
        made.append(Hosts(tmp_path, count, stand_in_python(tmp_path)))
        made[0].__enter__()
        return made[0]

    yield hosts
    try:
        made[0].end()
        assert [(host.name, processes_of(host)) for host in made[0].hosts if host.processes()] == []
    finally:
        made[0].__exit__()


def processes_of(host: Host) -> list[str]:
    return [" ".join(process.cmdline())[:200] for process in host.processes()]


def steps(hosts: Hosts) -> list[int]:
    metrics = hosts.runs / "sim" / "metrics.jsonl"
    return [json.loads(line)["step"] for line in metrics.read_text().splitlines()] if metrics.is_file() else []


def interfaces_of(host: Host, variable: str) -> set[str]:
    """What the processes of a run on a host take for `variable`."""
    values = set()
    for process in host.processes():
        environment = process.environ()
        if "RECIPE_RUN_ID" in environment:
            values.add(environment.get(variable, ""))
    return values


def test_three_hosts_run_with_their_own_addresses(make: Make, tmp_path: Path) -> None:
    """h1 is reached by name, and h2 has a second network, to which its default route leads."""
    hosts = make(3)
    h0, h1, h2 = hosts.hosts
    hosts.add_network(h2)
    go = tmp_path / "go"
    file = hosts.run_file(**THREE, steps="2", hosts=json.dumps(["h0", "h1", "h2"]))
    # By name on one host, by address on the others.
    waits = {"STAND_IN_STEP": "1", "STAND_IN_GO": str(go)}
    launchers = [
        hosts.launch(file, h0, "--head", "h0", **waits),
        hosts.launch(file, h1, "--head", "h0"),
        hosts.launch(file, h2, "--head", "10.77.0.1", runs=tmp_path / "its own disk"),
    ]
    until(lambda: steps(hosts) == [1], launchers)
    extra = hosts.launch(file, h1, "--head", "h0", "--node-name", "h9", "--ports", "7000")
    for host in hosts.hosts:
        assert interfaces_of(host, "GLOO_SOCKET_IFNAME") == {"eth0"}
        assert interfaces_of(host, "VLLM_HOST_IP") == {host.address}
    listening = {host.name: host.listening() for host in hosts.hosts}
    code, said = end_of(extra)
    assert code == 1 and "turned this node away: one node too many: the run has 3, and " in said, said
    # Ours listens on the head's address only; Ray's ports are those that are planned.
    assert listening["h0"].pop(6380)[0] == "10.77.0.1"
    for name, sockets in listening.items():
        stray = {port: held for port, held in sockets.items() if not 6379 <= port <= 6452}
        assert set(stray) <= {44217}, (name, stray)
    go.touch()
    said = [end_of(launcher) for launcher in launchers]
    assert [code for code, _ in said] == [0, 0, 0], said
    assert "10.77.0.2 (h1, 1 dies) has come" in said[0][1] and "10.77.0.3 (h2, 1 dies) has come" in said[0][1]
    dies = (hosts.runs / "sim" / "logs" / "driver.log").read_text()
    assert f"dies: ['10.77.0.1 {hosts.runs}/sim', '10.77.0.2 {hosts.runs}/sim/nodes/10.77.0.2', '10.77.0.3 " in dies
    assert (hosts.runs / "sim" / "nodes" / "10.77.0.3" / "logs" / "ray" / "raylet.out").stat().st_size


def test_a_host_that_is_cut_off_ends_the_run_on_both_sides(make: Make) -> None:
    hosts = make(2)
    h0, h1 = hosts.hosts
    file = hosts.run_file(**TWO, steps="3")
    head, worker = hosts.launch(file, h0, STAND_IN_STEP="2"), hosts.launch(file, h1)
    until(lambda: steps(hosts) == [1, 2], [head, worker])
    hosts.unplug(h1)
    cut = time.monotonic()
    code, said = end_of(head, SILENCE_S + 60)
    # Not a question of speed: without a limit of its own TCP would take a quarter of an hour.
    assert time.monotonic() - cut < SILENCE_S + 60
    silence = f"nothing was heard of it for {SILENCE_S:.0f} s (machine or network down)"
    lost = f"error: after step 2: node 10.77.0.2 (h1): its launcher is gone: {silence}\n"
    assert code == 1 and lost in said and "no logs from 10.77.0.2" in said, said
    code, said = end_of(worker, 60)
    assert code == 1 and f"error: the head at 10.77.0.1 is gone: {silence}\n" in said, said


def test_closed_ports_are_named(make: Make) -> None:
    """A firewall that drops packets is silent: Ray alone would wait, and then say what follows from it."""
    hosts = make(2)
    h0, h1 = hosts.hosts
    file = hosts.run_file(**TWO, steps="2")
    hosts.close_port(h0, 6379)
    head, worker = hosts.launch(file, h0), hosts.launch(file, h1)
    closed = "does not answer (timed out); is it closed by a firewall?"
    code, said = end_of(worker)
    assert code == 1 and f"error: Ray's GCS on the head: 10.77.0.1 port 6379 {closed}" in said, said
    hosts.close_port(h0, 6379, closed=False)
    hosts.close_port(h1, 6381)
    worker = hosts.launch(file, h1)
    code, said = end_of(head)
    assert f"10.77.0.2 is lost: Ray's GCS on the head: 10.77.0.1 port 6379 {closed}" in said, said
    problem = f"Ray's node manager on node 10.77.0.2 (h1): 10.77.0.2 port 6381 {closed}"
    assert code == 1 and f"error: {problem}" in said, said
    code, said = end_of(worker)
    assert code == 1 and f"error: the run failed: {problem}" in said, said
