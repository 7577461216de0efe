# SPDX-License-Identifier: Apache-2.0
"""Everything that can be known to be wrong with a run before it takes a cluster, by the checks of `recipe.checks`.

`run(config)` is what the launcher calls; `python -m recipe preflight RUN.toml` is what people type.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from recipe.checks.catalogue import check_named, checks_that_need
from recipe.checks.declaration import CLUSTER, FILES, NODE, STATIC
from recipe.checks.facts import dies
from recipe.checks.facts.cluster import ask_safely
from recipe.checks.facts.machine import Machine, this_machine
from recipe.checks.facts.packages import COMPARED
from recipe.checks.facts.run import Facts
from recipe.checks.facts.run_file import Unreadable, read
from recipe.checks.finding import CheckFinding
from recipe.checks.report import Report, examine
from recipe.runfile.paths import upstream_dir
from recipe.runfile.schema import RunConfig

__all__ = ["Report", "refusals", "run", "run_file"]


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
    node = config.simulated if node is None else node
    facts = Facts(config, machine or this_machine(), node, upstream_dir(), base_port=base_port)
    if node and not config.simulated:
        facts = dataclasses.replace(facts, dies=dies.ask_safely(config.cluster.device))
    if cluster:
        ray = ask_safely(facts.ray_address, facts.shared_paths, list(COMPARED), facts.upstream)
        facts = dataclasses.replace(facts, ray=ray)
    needs = [STATIC, FILES, *([NODE] if node else []), *([CLUSTER] if cluster else [])]
    return examine(checks_that_need(*needs), facts)


def refusals(config: RunConfig, *, machine: Machine | None = None) -> tuple[CheckFinding, ...]:
    """The errors for which a launch would refuse this run wherever it is called: in the run file itself, and in what it
    names, as far as that is on this machine, which is all of a simulated run's."""
    facts = Facts(config, machine or this_machine(), config.simulated, upstream_dir())
    return examine(checks_that_need(STATIC, FILES), facts).errors


def run_file(
    path: Path,
    settings: Sequence[str] = (),
    *,
    node: bool | None = None,
    cluster: bool | None = None,
    machine: Machine | None = None,
) -> Report:
    """Check the run of a file, the file included, with `settings` of verl beside its own. `cluster` defaults to whether
    the run has a Ray to be asked."""
    config = read(path, settings)
    if isinstance(config, Unreadable):
        return examine([check_named("C001")], config)
    return run(config, node=node, cluster=not config.simulated if cluster is None else cluster, machine=machine)
