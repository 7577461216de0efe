# SPDX-License-Identifier: Apache-2.0
"""Everything that can be known to be wrong with a run before it takes a cluster.

`run(config)` is what the launcher calls; `python -m recipe preflight RUN.toml` is what people type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from recipe.preflight.catalogue import CATALOGUE, Check, Finding
from recipe.preflight.report import Report, examine

if TYPE_CHECKING:
    from recipe.preflight.facts import Facts
    from recipe.preflight.machine import Machine
    from recipe.preflight.ray_facts import RayFacts
    from recipe.runfile.schema import RunConfig

__all__ = ["Report", "every_check", "refusals", "run", "run_file"]


def every_check() -> tuple[Check, ...]:
    """All declared checks, by id."""
    from recipe.preflight import declared  # noqa: F401

    return tuple(CATALOGUE)


def run(
    config: RunConfig,
    *,
    node: bool | None = None,
    cluster: bool = False,
    base_port: int | None = None,
    machine: Machine | None = None,
) -> Report:
    """Check a run.

    Args:
        config: the run.
        node: whether this machine is one of the run's: what the run reads must then be here, and the machine itself is
            checked. Default: for a simulated run, whose only machine is this one.
        cluster: also ask the Ray at [cluster] head, which must be up with all its nodes.
        base_port: the first of this node's Ray ports, where it is not the run file's.
        machine: this machine's facts, read if not given.

    Returns: the report; `report.ok` is false when an error was found, `report.lines()` says all of it.
    """
    from recipe.preflight.facts import Facts
    from recipe.preflight.machine import this_machine
    from recipe.runfile.paths import upstream_dir

    node = config.simulated if node is None else node
    facts = Facts(config, machine or this_machine(), node, upstream_dir(), base_port=base_port)
    if cluster:
        facts = dataclasses.replace(facts, ray=_asked_ray(facts))
    kinds: Iterable[str] = ["static", "files", *(["node"] if node else []), *(["cluster"] if cluster else [])]
    return examine([one for one in every_check() if one.needs in kinds], facts)


def refusals(config: RunConfig, *, machine: Machine | None = None) -> tuple[Finding, ...]:
    """The errors for which a launch would refuse this run wherever it is called: in the run file itself, and in what it
    names, as far as that is on this machine, which is all of a simulated run's."""
    from recipe.preflight.facts import Facts
    from recipe.preflight.machine import this_machine
    from recipe.runfile.paths import upstream_dir

    facts = Facts(config, machine or this_machine(), config.simulated, upstream_dir())
    return examine([one for one in every_check() if one.needs in ("static", "files")], facts).errors


def _asked_ray(facts: Facts) -> RayFacts:
    """What the run's Ray says, or why that could not be asked."""
    from recipe.preflight.crash import account, asks_to_stop
    from recipe.preflight.packages import COMPARED
    from recipe.preflight.ray_facts import RayFacts, ask

    try:
        return ask(facts.ray_address, facts.shared_paths, list(COMPARED), facts.upstream)
    except BaseException as error:
        if asks_to_stop(error):
            raise
        return RayFacts(failed=account(error))


def run_file(
    path: Path, *, node: bool | None = None, cluster: bool | None = None, machine: Machine | None = None
) -> Report:
    """Check the run of a file, the file included. `cluster` defaults to whether the run has a Ray to be asked."""
    from recipe.preflight.readable import Unreadable, read

    config = read(path)
    if isinstance(config, Unreadable):
        return examine([one for one in every_check() if one.id == "C001"], config)
    return run(config, node=node, cluster=not config.simulated if cluster is None else cluster, machine=machine)
