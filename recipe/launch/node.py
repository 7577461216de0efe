# SPDX-License-Identifier: Apache-2.0
"""What this node is in a run on several: head or worker, its addresses and ports, its run file and code."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import socket
import sys
from dataclasses import dataclass

from recipe.launch.messages import NAME, Node
from recipe.launch.network import (
    address_of,
    interface_of,
    is_local,
    is_loopback,
    require_free,
    resolve,
    source_address,
)
from recipe.launch.ray_node import ray_version
from recipe.own_packages import own_packages
from recipe.runfile.errors import ConfigError
from recipe.runfile.hosts import require_host
from recipe.runfile.masking import comparable_environment
from recipe.runfile.paths import REPO, upstream_dir
from recipe.runfile.ports import NodePorts, default_base, head_ports
from recipe.runfile.schema import RunConfig
from recipe.runfile.settings import keys
from recipe.sources.swap import read_manifest

_CODE = (".py", ".patch")


@dataclass(frozen=True)
class Place:
    """Where this node stands in the run: `head` is the head's address, `address` its own."""

    head: str
    address: str
    leads: bool
    name: str
    ports: NodePorts
    interface: str


def find_place(
    config: RunConfig,
    head: str | None = None,
    worker: bool = False,
    address: str | None = None,
    interface: str | None = None,
    name: str | None = None,
    ports: int | None = None,
) -> Place:
    """Work out this node's role, name, addresses and ports.

    Args:
        config: the run.
        head: the head's address or name; default: the run file's, or 127.0.0.1 for a run on one node.
        worker: this node is a worker, even if the head's address is one of this machine's.
        address: this node's own; default: that of `interface`, or the one from which the head is reached.
        interface: the network interface between the nodes; default: the run file's.
        name: of this node; default: its address.
        ports: the first of its ports; default: the run file's ray_port + 2.

    Raises:
        ConfigError: an address or an interface that this machine does not have, or a head that others cannot reach.
        LaunchError: the head cannot be reached from here.
    """
    cluster = config.cluster
    head_name = head or cluster.head or ("127.0.0.1" if cluster.nodes == 1 else None)
    if head_name is None:
        raise ConfigError("no head node is named; set [cluster] head in the run file, or give --head ADDRESS")
    require_host(head_name, "the head's address")
    head = resolve(head_name)
    interface = interface or cluster.interface
    interface_address = address_of(interface) if interface else None
    leads = is_local(head) and not worker
    if address is not None:
        require_host(address, "--address")
        own = resolve(address)
    elif leads:
        own = head
    else:
        own = interface_address or source_address(head)
    carrier = interface_of(own)
    if interface and carrier != interface:
        raise ConfigError(
            f"{own} belongs to interface {carrier}, not to {interface}; name the interface that carries the head's "
            "address, or another --address"
        )
    # Simulated nodes may share a machine, and are given addresses then. A name that means loopback is an accident:
    # Debian's /etc/hosts has the machine's own name at 127.0.1.1.
    if cluster.nodes > 1 and is_loopback(head) and not (config.simulated and head_name == head):
        origin = "the head's address is" if head_name == head else f"{head_name} means"
        raise ConfigError(f"{origin} {head}, which no other node can reach; give the head's address in the network")
    if leads and own != head:
        raise ConfigError(f"--address {own} is not the head's address {head}; leave it out on the head")
    name = name or own
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"node name {name!r}: use letters, digits, '.', '_', ':' and '-', at most 64, no leading mark"
        )
    base = default_base(config) if ports is None else ports
    return Place(head, own, leads, name, NodePorts(base, cluster.dies_per_node), carrier)


def require_free_ports(config: RunConfig, place: Place, dashboard: bool) -> None:
    """All ports this node needs are free.

    Raises:
        ConfigError: two of them are the same, or beyond the last port.
        LaunchError: one is in use.
    """
    wanted = place.ports.purposes()
    more = head_ports(config) if place.leads else {}
    if place.leads and dashboard:
        more["Ray's dashboard"] = config.cluster.dashboard_port
    for purpose, port in more.items():
        if port in wanted:
            raise ConfigError(f"port {port} is meant for {purpose} and for {wanted[port]}; choose others with --ports")
        wanted[port] = purpose
    if max(wanted) > 65535:
        raise ConfigError(f"ports go up to {max(wanted)}, beyond 65535; choose a lower --ports or [cluster] ray_port")
    require_free(wanted)


def present(config: RunConfig, place: Place, token: bytes) -> Node:
    """This node as it presents itself to the others, who hold the same token."""
    facts = {
        "code": code_digest(),
        "Python": "{}.{}".format(*sys.version_info[:2]),
        "Ray": "{}.{}".format(*ray_version()),
    }
    return Node(
        name=place.name,
        address=place.address,
        host=socket.gethostname(),
        dies=config.cluster.dies_per_node,
        daemons=place.ports.daemons(),
        facts=facts,
        settings=comparable(config, token),
    )


def comparable(config: RunConfig, token: bytes) -> dict[str, object]:
    """The run file's values that must be the same on all nodes: those of all keys that are not `per_node`.

    Secret values of the environment are digests under the token: the channel does not encrypt.
    """
    values = dataclasses.asdict(config) | {"environment": comparable_environment(config.environment, token)}
    for name in (name for name, field in keys().items() if field.metadata["per_node"]):
        section, key = name.split(".")
        values[section].pop(key)
    return values


def code_digest() -> str:
    """A short hash of our code and of what the upstream tree was made from: nodes of one run must agree in it."""
    hasher = hashlib.sha256()
    files = [path for package in own_packages(REPO) for path in (REPO / package).rglob("*") if path.suffix in _CODE]
    for path in [*sorted(files), REPO / "upstreams.toml"]:
        hasher.update(str(path.relative_to(REPO)).encode())
        hasher.update(hashlib.sha256(path.read_bytes()).digest())
    manifest = read_manifest(upstream_dir()) or {}
    # Where a node keeps trees that it has adopted is its own matter; what is in them is not.
    hasher.update(json.dumps({name: value for name, value in manifest.items() if name != "adopted"}).encode())
    return hasher.hexdigest()[:12]
