# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe preflight RUN.toml`."""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

from recipe.runfile.passed.option import add_settings

COMMANDS = ("preflight",)
TEXT = "everything that can be known to be wrong with a run before it takes a cluster"
DETAILS = """\
Without options the run file and the files it names are checked, as far as they are on this machine, and the Ray at
[cluster] head is asked. A simulated run's only machine is this one: it is checked as with --node, and no Ray is asked.

examples:
  python -m recipe preflight configs/a3_256die.toml --no-cluster    on a laptop, before anything is booked
  python -m recipe preflight configs/a3_256die.toml --node --no-cluster    on each node, before Ray is started
  python -m recipe preflight configs/a3_256die.toml                 on the head node, with Ray up on all nodes
  python -m recipe preflight --list                                 every check (docs/PREFLIGHT.md has the reasons)

exit code: 0 nothing stands in the way (warnings do not); 2 an error was found
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `preflight` command."""
    parser = subparsers.add_parser(
        "preflight", help=TEXT, description=TEXT + ".", epilog=DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("config", type=Path, nargs="?", metavar="RUN.toml")
    parser.add_argument("--node", action="store_true", help="this machine is one of the run's: check it as such")
    parser.add_argument("--no-cluster", action="store_true", help="ask no Ray")
    parser.add_argument("--json", action="store_true", help="print the report, or the catalogue, as JSON")
    parser.add_argument("--list", action="store_true", help="print every check, and check nothing")
    add_settings(parser)
    parser.set_defaults(handler=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    from recipe.preflight import run_file

    if options.list:
        print(_listing(options.json))
        return 0
    if options.config is None:
        print("error: preflight needs a run file, such as configs/sim.toml (or --list)", file=sys.stderr)
        return 2
    cluster = False if options.no_cluster else None
    report = run_file(options.config, options.settings, node=options.node or None, cluster=cluster)
    if options.json:
        print(json.dumps(report.as_json(), indent=2))
    else:
        if isinstance(sys.stdout, io.TextIOWrapper):  # letters of a path that this terminal's encoding does not have
            sys.stdout.reconfigure(errors="backslashreplace")
        print("\n".join(report.lines()))
    return report.exit_code


def _listing(as_json: bool) -> str:
    """The declarations of the checks of a run: one line for each, or all of them as JSON."""
    from recipe.checks.catalogue import checks_that_need
    from recipe.checks.declaration import CLUSTER, FILES, NODE, STATIC

    checks = checks_that_need(STATIC, FILES, NODE, CLUSTER)
    if as_json:
        names = ("id", "title", "needs", "why", "fix")
        return json.dumps([{name: getattr(check, name) for name in names} for check in checks], indent=2)
    lines = [f"{check.id}  {check.needs:8}{check.title}" for check in checks]
    return "\n".join([*lines, f"{len(lines)} checks; docs/PREFLIGHT.md has the reasons"])
