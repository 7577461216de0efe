# SPDX-License-Identifier: Apache-2.0
"""What may stand for a node: an IPv4 address, or the name of a host."""

from __future__ import annotations

import ipaddress
import re

from recipe.runfile.errors import ConfigError
from recipe.runfile.typed_toml import shown

_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}")
_WITH_PORT = re.compile(r"\[?[^\[\]]+\]?:[0-9]+")


def require_host(host: str, label: str) -> None:
    """Refuses what is neither an IPv4 address nor the name of a host; whether anybody has it is not looked at.

    Raises:
        ConfigError: says what it is, after `label`.
    """
    problem = None
    if _is_ipv6(host.strip("[]")):
        problem = "is an IPv6 address; the nodes of a run meet over IPv4: expected such an address, or a host's name"
    elif _WITH_PORT.fullmatch(host):
        problem = "has a port; expected the address alone: [cluster] ray_port is the port of Ray"
    elif not _HOST.fullmatch(host):
        problem = "is no address; expected one, or a host's name"
    elif re.fullmatch("[0-9.]+", host) and not _is_ipv4(host):
        problem = "is no IPv4 address; expected four numbers up to 255, or a host's name"
    if problem:
        raise ConfigError(f"{label} {shown(host)} {problem}")


def _is_ipv4(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 4
    except ValueError:
        return False


def _is_ipv6(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).version == 6
    except ValueError:
        return False
