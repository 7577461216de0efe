# SPDX-License-Identifier: Apache-2.0
"""`[cluster]` and `[simulator]`: the machines."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.schema.hardware import CUSTOM, DEVICES, HARDWARE, SIM
from recipe.runfile.typed_toml import CHANGES, FREE, key

# An address of the block that RFC 5737 keeps for documentation stands for "put yours here".
PLACEHOLDER_HEAD = "192.0.2.1"
# CANN 8.2.RC1 listens on so many ports from HCCL_IF_BASE_PORT on.
HCCL_PORTS = 32


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The machines. A die is what Ray counts as one `NPU` (or `GPU`) and torch as one device."""

    device: str = key(
        "sim: simulated NPUs of this machine; npu: Ascend; cuda: GPUs", SIM, choices=DEVICES, on_resume=CHANGES
    )
    hardware: str | None = key(
        "what its nodes are, for memory and speed (docs/PLAN.md); npu and cuda need it, sim has none. On a node "
        "`python -m recipe doctor` names it; custom: what [hardware] says",
        None,
        choices=(*HARDWARE, CUSTOM),
        on_resume=FREE,
    )
    nodes: int = key("machines", least=1, gives="trainer.nnodes", on_resume=FREE)
    dies_per_node: int = key(
        "dies of each machine; default: all that such hardware has, "
        + ", ".join(f"{name}: {hardware.dies_per_node}" for name, hardware in HARDWARE.items()),
        None,
        least=1,
        gives="trainer.n_gpus_per_node",
        on_resume=FREE,
    )
    hbm_gib_per_die: float | None = key(
        "memory that torch is offered on a die (sim: [simulator] hbm_mib); default: that of the hardware, "
        + ", ".join(f"{name}: {hardware.offered_gib:g}" for name, hardware in HARDWARE.items()),
        None,
        unit="GiB",
        least=1,
        on_resume=FREE,
    )
    host_memory_gib_per_node: float | None = key(
        "memory of a machine; default: that of the hardware, of which more than this is only warned of, "
        + ", ".join(f"{name}: {hardware.host_gib:g}" for name, hardware in HARDWARE.items()),
        None,
        unit="GiB",
        least=1,
        on_resume=FREE,
    )
    head: str | None = key(
        "address or name of the head node; sim: this machine, and not given",
        None,
        gives="ray_kwargs.ray_init.address",
        on_resume=FREE,
        per_node=True,
    )
    hosts: list[str] = key(
        "addresses or names of all nodes, the head's too, so that a missing one can be named; default: only counted",
        [],
        on_resume=FREE,
    )
    interface: str | None = key(
        "network interface between the nodes, where it has the same name on all; default: the one that leads to the "
        "head, found on every node",
        None,
        gives="HCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME, TP_SOCKET_IFNAME",
        on_resume=FREE,
        per_node=True,
    )
    ray_port: int = key(
        "port of the head node's Ray",
        6379,
        least=1024,
        most=65535,
        gives="ray_kwargs.ray_init.address",
        on_resume=FREE,
    )
    dashboard_port: int = key(
        "port of Ray's dashboard, on 127.0.0.1 of the head node", 8265, least=1024, most=65535, on_resume=FREE
    )
    hccl_base_port: int = key(
        f"first of the {HCCL_PORTS} ports that HCCL listens on on every node; above those that Linux hands out (to "
        "60999), and apart from Ray's",
        61000,
        least=1024,
        most=65536 - HCCL_PORTS,
        gives="HCCL_IF_BASE_PORT",
        on_resume=FREE,
    )
    wait_deadline_s: int = key(
        "how long the head waits for the other nodes", 600, unit="s", least=1, on_resume=FREE, per_node=True
    )
    collective_timeout_s: int = key(
        "longest time of one collective; the first one waits for the slowest rank to compile its graph",
        3600,
        unit="s",
        least=120,
        most=7200,
        gives="HCCL_CONNECT_TIMEOUT, HCCL_EXEC_TIMEOUT, nccl_timeout",
        on_resume=FREE,
    )

    def __post_init__(self) -> None:
        if self.dies_per_node is None and self.hardware in HARDWARE:
            object.__setattr__(self, "dies_per_node", HARDWARE[self.hardware].dies_per_node)

    @property
    def own_ray(self) -> bool:
        """Whether the driver starts a Ray of its own, on loopback, instead of joining that of the nodes."""
        return self.device == SIM and self.nodes == 1

    @property
    def hccl_ports(self) -> range:
        """The ports that HCCL listens on on every node."""
        return range(self.hccl_base_port, self.hccl_base_port + HCCL_PORTS)

    @property
    def ray_address(self) -> str:
        """Where the nodes of a cluster find the head's Ray."""
        return f"{self.head or '127.0.0.1'}:{self.ray_port}"


@dataclass(frozen=True, kw_only=True)
class Simulator:
    """The simulated devices."""

    hbm_mib: int = key("memory of a simulated die", 256, unit="MiB", least=1, gives="NPU_SIM_HBM", on_resume=FREE)
    outside_mib: int = key(
        "of these, what others than torch hold, as HCCL's buffers and a process's context do on an NPU", 0, unit="MiB",
        least=0, gives="NPU_SIM_OUTSIDE", on_resume=FREE,
    )  # fmt: skip
    strict: bool | None = key(
        "what an NPU does not take ends the run, with the operator, the argument and the source (docs/STRICTNESS.md); "
        "default: where the model's heads and experts are of published sizes",
        None,
        gives="NPU_SIM_STRICT",
        on_resume=FREE,
    )
