# SPDX-License-Identifier: Apache-2.0
"""Which address a node speaks from, whether its ports are free, and whether another node's answer."""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Mapping

import psutil

from recipe.runfile.errors import ConfigError, LaunchError


def interfaces() -> dict[str, list[str]]:
    """The IPv4 addresses of each network interface that is up, by its name."""
    up = {name for name, state in psutil.net_if_stats().items() if state.isup}
    addresses_by_name = {
        name: [entry.address for entry in entries if entry.family == socket.AF_INET]
        for name, entries in psutil.net_if_addrs().items()
        if name in up
    }
    return {name: addresses for name, addresses in sorted(addresses_by_name.items()) if addresses}


def address_of(interface: str) -> str:
    """The first IPv4 address of an interface.

    Raises:
        ConfigError: it does not exist, is down, or has no IPv4 address.
    """
    known = interfaces()
    if interface in known:
        return known[interface][0]
    problem = "is down or has no IPv4 address" if interface in psutil.net_if_addrs() else "does not exist"
    raise ConfigError(f"interface {interface} {problem}; this machine has {_listed(known)}")


def interface_of(address: str) -> str:
    """The interface that carries an address of this machine; all of 127.0.0.0/8 is the loopback interface's.

    Raises:
        ConfigError: no interface carries it.
    """
    known = interfaces()
    for name, addresses in known.items():
        if address in addresses or (is_loopback(address) and any(map(is_loopback, addresses))):
            return name
    raise ConfigError(f"{address} is not an address of this machine, which has {_listed(known)}")


def is_local(address: str) -> bool:
    """Whether `address` is one of this machine's."""
    return is_loopback(address) or any(address in addresses for addresses in interfaces().values())


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def resolve(host: str) -> str:
    """The IPv4 address of a host name or address.

    Raises:
        ConfigError: the name is not known.
    """
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ConfigError(f"{host}: no IPv4 address is known for this name ({error.strerror})") from None


def source_address(target: str) -> str:
    """The address of this machine from which packets to `target` leave. Nothing is sent.

    Raises:
        LaunchError: there is no route.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((target, 9))
        except OSError as error:
            raise LaunchError(f"no route from here to {target} ({error.strerror}); name another --interface") from None
        return str(probe.getsockname()[0])


def require_free(ports: Mapping[int, str]) -> None:
    """Each port can be listened on, on every address.

    Args:
        ports: what each port is for.

    Raises:
        LaunchError: one is taken; the message says by whom, where that can be seen.
    """
    for port, purpose in ports.items():
        if not _free(port):
            raise LaunchError(
                f"port {port} ({purpose}) is in use{_holder(port)}; end what holds it, or choose others with --ports"
            )


def require_answer(address: str, port: int, purpose: str, limit_s: float = 10.0) -> None:
    """Something listens on another node's port, and this node gets through to it.

    Args:
        purpose: of the port, and whose it is.
        limit_s: how long it is tried, in seconds.

    Raises:
        LaunchError: nothing answers; a firewall that drops packets looks like a machine that is off.
    """
    end = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection((address, port), timeout=max(0.1, end - time.monotonic())).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise LaunchError(
                    f"{purpose}: {address} port {port} does not answer ({error.strerror or error}); "
                    "is it closed by a firewall? docs/LAUNCH.md lists the ports that must be open between nodes"
                ) from None
        time.sleep(0.2)


def _free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port that an ended connection still keeps in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
            probe.listen(1)
        except OSError:
            return False
    return True


def _holder(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""


def _listed(known: Mapping[str, list[str]]) -> str:
    return (
        ", ".join(f"{name} ({', '.join(addresses)})" for name, addresses in known.items()) or "no interface that is up"
    )
