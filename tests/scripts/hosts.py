# SPDX-License-Identifier: Apache-2.0
"""Several hosts on this machine: network namespaces on a bridge, each with its own interfaces, ports and host name.

The bridge stands in a namespace of its own, so nothing leads from the hosts to this machine's network. Needs root and
iproute2.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.scripts.nodes import REPO, Nodes

NETWORK = "10.77.0"
# What a host's second interface is in: a network that leads nowhere.
OTHER_NETWORK = "10.78.0"


def why_not() -> str | None:
    """Why no namespaces can be made here; None where they can."""
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "ip (iproute2) and unshare (util-linux) are not installed"
    if os.geteuid() != 0:
        return "root makes network namespaces"
    probe = f"probe-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    subprocess.run(["ip", "netns", "del", probe], capture_output=True, check=False)
    return None if made.returncode == 0 else f"`ip netns add` failed: {made.stderr.strip()}"


@dataclass
class Host:
    """One host: `name` is its host name, `namespace` that of its network."""

    number: int
    namespace: str

    @property
    def name(self) -> str:
        return f"h{self.number}"

    @property
    def address(self) -> str:
        return f"{NETWORK}.{self.number + 1}"

    def ip(self, *arguments: str) -> str:
        """`ip` inside of the host."""
        return _output("ip", "-n", self.namespace, *arguments)

    def within(self, *command: str) -> list[str]:
        """A command line that runs `command` on this host, as `ip netns exec` does."""
        name = 'hostname "$0" && exec "$@"'
        return ["ip", "netns", "exec", self.namespace, "unshare", "--uts", "sh", "-c", name, self.name, *command]

    def listening(self) -> dict[int, tuple[str, str]]:
        """Address and program of each listening TCP socket, by port."""
        found = {}
        for line in _output("ip", "netns", "exec", self.namespace, "ss", "-Htlnp").splitlines():
            _, _, _, local, _, *users = line.split()
            address, _, port = local.rpartition(":")
            found[int(port)] = (address, users[0] if users else "")
        return found

    def processes(self) -> list[psutil.Process]:
        """What runs on this host."""
        found = []
        for pid in _output("ip", "netns", "pids", self.namespace).split():
            try:
                found.append(psutil.Process(int(pid)))
            except psutil.Error:
                continue
        return found


class Hosts(Nodes):
    """Hosts h0, h1, ... with addresses 10.77.0.1, 10.77.0.2, ...; h0 leads. Use as a context manager."""

    def __init__(self, directory: Path, count: int, python: Path | None = None) -> None:
        super().__init__(directory, python, base=6379)
        self._prefix = f"grpo-{os.getpid()}"
        self._switch = f"{self._prefix}-switch"
        self._count = count
        self.hosts: list[Host] = []

    def __enter__(self) -> Hosts:
        try:
            _output("ip", "netns", "add", self._switch)
            _output("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge")
            _output("ip", "-n", self._switch, "link", "set", "br0", "up")
            for number in range(self._count):
                self._add(Host(number, f"{self._prefix}-h{number}"))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self.end()
        finally:
            self._remove()

    def _add(self, host: Host) -> None:
        _output("ip", "netns", "add", host.namespace)
        self.hosts.append(host)
        far = f"to-{host.name}"
        link = ["link", "add", far, "type", "veth", "peer", "name", "eth0", "netns", host.namespace]
        _output("ip", "-n", self._switch, *link)
        _output("ip", "-n", self._switch, "link", "set", far, "master", "br0", "up")
        host.ip("link", "set", "lo", "up")
        # Rules are asked in order: room before the one that says which packets are this host's.
        host.ip("rule", "add", "pref", "100", "lookup", "local")
        host.ip("rule", "del", "pref", "0")
        host.ip("address", "add", f"{host.address}/24", "dev", "eth0")
        host.ip("link", "set", "eth0", "up")
        # `ip netns exec` puts these files in the place of /etc/hosts and /etc/resolv.conf.
        files = Path("/etc/netns") / host.namespace
        files.mkdir(parents=True)
        names = "".join(f"{NETWORK}.{number + 1} h{number}\n" for number in range(self._count))
        (files / "hosts").write_text(f"127.0.0.1 localhost\n{names}", encoding="ascii")
        (files / "resolv.conf").write_text("", encoding="ascii")

    def _remove(self) -> None:
        for host in self.hosts:
            for process in host.processes():
                process.kill()
            _output("ip", "netns", "del", host.namespace)
            shutil.rmtree(Path("/etc/netns") / host.namespace, ignore_errors=True)
        _output("ip", "netns", "del", self._switch)

    def unplug(self, host: Host) -> None:
        """Cut a host off: no packet passes, and no end of a connection learns of it."""
        _output("ip", "-n", self._switch, "link", "set", f"to-{host.name}", "down")

    def add_network(self, host: Host) -> None:
        """Give a host a second interface, in a network of its own, to which its default route leads."""
        link = ["link", "add", f"other-{host.name}", "type", "veth", "peer", "name", "eth1", "netns", host.namespace]
        _output("ip", "-n", self._switch, *link)
        _output("ip", "-n", self._switch, "link", "set", f"other-{host.name}", "up")
        host.ip("address", "add", f"{OTHER_NETWORK}.{host.number + 1}/24", "dev", "eth1")
        host.ip("link", "set", "eth1", "up")
        host.ip("route", "add", "default", "via", f"{OTHER_NETWORK}.254", "dev", "eth1")

    def close_port(self, host: Host, port: int, closed: bool = True) -> None:
        """Have a firewall: packets from other hosts to this one's port vanish."""
        rule = ["pref", "10", "iif", "eth0", "ipproto", "tcp", "dport", str(port), "blackhole"]
        host.ip("rule", "add" if closed else "del", *rule)

    def launch(
        self, file: Path, host: Host, *options: str, runs: Path | None = None, preflight: bool = False, **given: str
    ) -> subprocess.Popen[str]:
        """Start scripts/launch.sh on a host, as a user does there."""
        command = ["bash", str(REPO / "scripts" / "launch.sh"), str(file)]
        command += [*([] if preflight else ["--no-preflight"]), *options]
        temp = self.directory / "tmp" / host.name
        temp.mkdir(parents=True, exist_ok=True)
        added = {"RECIPE_RUNS": str(runs or self.runs), "RECIPE_TOKEN_FILE": str(self.directory / "token")}
        added["TMPDIR"] = str(temp)
        if self.python is not None:
            added["RECIPE_VENV"] = str(self.python.parents[1])
        kept = {name: value for name, value in os.environ.items() if not name.endswith("_SOCKET_IFNAME")}
        launcher = subprocess.Popen(
            host.within(*command),
            env={**kept, **added, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.started.append(launcher)
        return launcher


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
    return done.stdout
