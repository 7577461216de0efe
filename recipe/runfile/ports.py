# SPDX-License-Identifier: Apache-2.0
"""Every port that a run listens on by plan, and that no two of them meet.

The rest take what the system hands out: verl's rendezvous and the data-parallel columns of vLLM bind port 0.
"""

from __future__ import annotations

from itertools import combinations

from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import HCCL_PORTS, NPU, RunConfig

LAST = 65535


def planned(config: RunConfig) -> dict[str, range]:
    """The ports of a node that may be the head, by purpose."""
    from recipe.launch.ray_node import NodePorts, default_base, head_ports

    cluster = config.cluster
    base = default_base(config)
    ports = {purpose: range(port, port + 1) for purpose, port in head_ports(config).items()}
    ports["Ray's daemons and workers ([cluster] ray_port)"] = range(
        base, base + NodePorts(base, cluster.dies_per_node).width
    )
    ports["Ray's dashboard ([cluster] dashboard_port)"] = range(cluster.dashboard_port, cluster.dashboard_port + 1)
    if cluster.device == NPU:
        ports["HCCL ([cluster] hccl_base_port)"] = range(cluster.hccl_base_port, cluster.hccl_base_port + HCCL_PORTS)
    return ports


def require_apart(config: RunConfig) -> None:
    """No port is planned twice, and none is beyond the last.

    Raises:
        ConfigError: says which purposes meet, and where.
    """
    ports = planned(config)
    for purpose, own in ports.items():
        if own[-1] > LAST:
            raise ConfigError(f"{purpose} goes up to port {own[-1]}, beyond {LAST}; choose a lower one")
    for (one, first), (other, second) in combinations(ports.items(), 2):
        if first[0] <= second[-1] and second[0] <= first[-1]:
            raise ConfigError(
                f"{one} has ports {first[0]} to {first[-1]} and {other} {second[0]} to {second[-1]}: move one of them"
            )
