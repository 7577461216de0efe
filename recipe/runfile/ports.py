# SPDX-License-Identifier: Apache-2.0
"""Every port that a run file plans, and the check that none is planned twice.

The rest take what the system hands out: verl's rendezvous and the data-parallel columns of vLLM bind port 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import NPU, RunConfig

LAST = 65535
# Ports that Ray's workers get besides one for each die: the trainer, its helpers, and Ray's own input and output.
_SPARE_WORKER_PORTS = 64
# The daemons of a node's Ray: the option of `ray start` that gives one its port, and what it is.
DAEMON_OPTIONS = {
    "node-manager-port": "node manager",
    "object-manager-port": "object manager",
    "dashboard-agent-grpc-port": "agent, gRPC",
    "dashboard-agent-listen-port": "agent, HTTP",
    "runtime-env-agent-port": "runtime environments",
    "metrics-export-port": "metrics",
    "ray-client-server-port": "clients",
}


@dataclass(frozen=True)
class NodePorts:
    """The ports of one node's Ray: those of its daemons from `base` on, then those of its workers."""

    base: int
    dies: int

    @property
    def workers(self) -> range:
        first = self.base + len(DAEMON_OPTIONS)
        return range(first, first + self.dies + _SPARE_WORKER_PORTS)

    @property
    def width(self) -> int:
        return len(DAEMON_OPTIONS) + len(self.workers)

    def daemons(self) -> dict[str, int]:
        """The ports by which other nodes reach this one's raylet."""
        return {
            name: self.base + list(DAEMON_OPTIONS.values()).index(name) for name in ("node manager", "object manager")
        }

    def purposes(self) -> dict[int, str]:
        """What each port is for."""
        fixed = {self.base + number: f"Ray, {name}" for number, name in enumerate(DAEMON_OPTIONS.values())}
        return fixed | dict.fromkeys(self.workers, "Ray, workers")


def head_ports(config: RunConfig) -> dict[str, int]:
    """What the head listens on besides its node's ports: Ray's GCS, and the launchers' meeting beside it."""
    return {"Ray, GCS": config.cluster.ray_port, "the launchers' meeting": config.cluster.ray_port + 1}


def default_base(config: RunConfig) -> int:
    """The first of a node's ports when none is named."""
    return config.cluster.ray_port + len(head_ports(config))


def planned(config: RunConfig, first: int | None = None, leads: bool = True) -> dict[str, range]:
    """The ports of a node, by purpose.

    Args:
        config: the run.
        first: of those of its Ray's daemons and workers; default: the run file's.
        leads: whether it is the head, or may be.
    """
    cluster = config.cluster
    base = default_base(config) if first is None else first
    node = NodePorts(base, cluster.dies_per_node)
    ports: dict[str, range] = {}
    if leads:
        ports |= {purpose: range(port, port + 1) for purpose, port in head_ports(config).items()}
    ports["Ray's daemons and workers ([cluster] ray_port)"] = range(base, base + node.width)
    if leads:
        ports["Ray's dashboard ([cluster] dashboard_port)"] = range(cluster.dashboard_port, cluster.dashboard_port + 1)
    if cluster.device == NPU:
        ports["HCCL ([cluster] hccl_base_port)"] = cluster.hccl_ports
    return ports


def require_apart(config: RunConfig) -> None:
    """No port is planned twice, and none is beyond the last.

    Raises:
        ConfigError: says which purposes meet, and where.
    """
    ranges = planned(config)
    for purpose, ports in ranges.items():
        if ports[-1] > LAST:
            raise ConfigError(f"{purpose} goes up to port {ports[-1]}, beyond {LAST}; choose a lower one")
    for (purpose_a, a), (purpose_b, b) in combinations(ranges.items(), 2):
        if a[0] <= b[-1] and b[0] <= a[-1]:
            raise ConfigError(
                f"{purpose_a} has ports {a[0]} to {a[-1]} and {purpose_b} {b[0]} to {b[-1]}: move one of them"
            )
