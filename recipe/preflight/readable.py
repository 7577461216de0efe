# SPDX-License-Identifier: Apache-2.0
"""C: the run file itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipe.preflight.catalogue import CATALOGUE, CannotTell, NoMatter, Said, bad, check
from recipe.preflight.crash import account, asks_to_stop
from recipe.preflight.facts import Facts
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import RunConfig


@dataclass(frozen=True)
class Unreadable:
    """What there is instead of facts when a run file cannot be used."""

    reason: str


@check(
    "C001", "the run file can be read: TOML, known keys, right types, values within their limits", needs="static",
    why="a typing mistake must not become a default",
    fix="correct the line; docs/CONFIG.md has every key",
)  # fmt: skip
def _readable(facts: Facts | Unreadable) -> Iterator[Said]:
    if isinstance(facts, Unreadable):
        found, _, expected = facts.reason.partition("; expected ")
        yield bad(found, expected or "a run file like those in configs/")


# Checks that say for themselves why nothing can be derived.
_SAID_BY = ("D004", "E015", "L013", "T005", "W003", "W004", "W012")


@check(
    "C002", "everything that verl is told can be derived", needs="static",
    why="the launcher stops where it cannot; this is what no check of its own has seen coming",
    fix="correct the run file as the message says; docs/CONFIG.md has every key, and what follows from it",
)  # fmt: skip
def _derivable(facts: Facts) -> Iterator[Said]:
    others = [CATALOGUE[id].findings(facts) or () for id in _SAID_BY]
    if any(one.level == "error" for findings in others for one in findings):
        raise CannotTell(f"first what {', '.join(_SAID_BY)} found must be put right")
    assert facts.layout
    try:
        facts.derived.complete()
    except ConfigError as error:
        yield bad(str(error), "a run file that leads to one command")


@check(
    "C003", "the nodes are told where the head is, by an address that leads there", needs="static",
    why="the nodes of a run meet at the head's address, and each of them takes 127.0.0.1 for itself",
    fix="set [cluster] head to the head's address in the network between the nodes (scripts/launch.sh: or --head)",
)  # fmt: skip
def _head(facts: Facts) -> Iterator[Said]:
    cluster = facts.config.cluster
    if cluster.nodes == 1:
        raise NoMatter
    if cluster.head is None:
        yield bad(f"no [cluster] head for {cluster.nodes} nodes", "the head's address")
    # Simulated nodes may share this machine.
    elif not facts.config.simulated and _loopback(cluster.head):
        yield bad(f"[cluster] head = {cluster.head} for {cluster.nodes} nodes", "an address that other nodes can reach")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read(path: Path) -> RunConfig | Unreadable:
    """The run of a file, or why there is none."""
    try:
        return load(path)
    except ConfigError as error:
        return Unreadable(str(error))
    except BaseException as error:
        if asks_to_stop(error):
            raise
        return Unreadable(account(error))
