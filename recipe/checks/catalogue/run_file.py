# SPDX-License-Identifier: Apache-2.0
"""C: the run file itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from recipe.checks.declaration import CATALOGUE, check
from recipe.checks.facts.run import Facts
from recipe.checks.facts.run_file import Unreadable
from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad
from recipe.runfile.errors import ConfigError
from recipe.runfile.passed.require import can_be_checked
from recipe.runfile.schema import CUDA


@check(
    "C001", "the run file can be read: TOML, known keys, right types, values within their limits", needs="static",
    why="a typing mistake must not become a default",
    fix="correct the line; docs/CONFIG.md has every key",
)  # fmt: skip
def _readable(facts: Facts | Unreadable) -> Iterator[Complaint]:
    if isinstance(facts, Unreadable):
        found, _, expected = facts.reason.partition("; expected ")
        yield bad(found, expected or "a run file like those in configs/")


@check(
    "C002", "everything that verl is told can be derived", needs="static",
    why="the launcher stops where it cannot; this is what no check of its own has seen coming",
    fix="correct the run file as the message says; docs/CONFIG.md has every key, and what follows from it",
)  # fmt: skip
def _derivable(facts: Facts) -> Iterator[Complaint]:
    others = [other for other in CATALOGUE if other.stops_derivation]
    if any(finding.level == "error" for other in others for finding in other.findings(facts) or ()):
        ids = ", ".join(other.id for other in others)
        raise CannotTell(f"first what {ids} found must be put right")
    _ = facts.layout
    try:
        facts.derived.complete()
    except ConfigError as error:
        yield bad(str(error), "a run file that leads to one command")


@check(
    "C003", "the nodes are told where the head is, by an address that leads there", needs="static",
    why="the nodes of a run meet at the head's address, and each of them takes 127.0.0.1 for itself",
    fix="set [cluster] head to the head's address in the network between the nodes (scripts/launch.sh: or --head)",
)  # fmt: skip
def _head(facts: Facts) -> Iterator[Complaint]:
    cluster = facts.config.cluster
    if cluster.nodes == 1:
        raise NoMatter
    if cluster.head is None:
        yield bad(f"no [cluster] head for {cluster.nodes} nodes", "the head's address")
    # Simulated nodes may share this machine.
    elif not facts.config.simulated and _loopback(cluster.head):
        yield bad(f"[cluster] head = {cluster.head} for {cluster.nodes} nodes", "an address that other nodes can reach")


@check(
    "C004", "the settings under [verl], and those of the command line, are ones that verl takes", needs="files",
    why="verl reads many settings only after the weights are loaded, and some not at all when they are misspelt; "
        "others follow from the run file, and a second value would contradict it",
    fix="correct the setting; docs/LAUNCH.md says what [verl] takes",
    stops_derivation=True,
)  # fmt: skip
def _settings_of_verl(facts: Facts) -> Iterator[Complaint]:
    if not facts.config.verl:
        raise NoMatter
    try:
        _ = facts.derived.passed
    except ConfigError as error:
        found, _, expected = str(error).partition("; expected ")
        yield bad(found, expected or "a key that verl's configuration has, and that the recipe leaves alone")
    if not can_be_checked(facts.upstream):
        raise CannotTell(f"{facts.upstream} holds no configuration of verl; run: python -m recipe sync")


@check(
    "C005", "runs on such devices have been started from this tree", needs="static",
    why="on GPUs the overlay's changes for NPUs step aside (docs/OVERLAY.md); what remains was only ever run with them",
    fix="begin with a small model on one node",
)  # fmt: skip
def _started(facts: Facts) -> Iterator[Complaint]:
    if facts.device != CUDA:
        raise NoMatter
    yield from ()
    raise CannotTell(
        "on GPUs nothing was ever started: neither verl's own rollout nor Transformer Engine nor NCCL by the launcher; "
        "data, reward and weights are the same as on NPUs, and were tested without them"
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
