# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe doctor`."""

from __future__ import annotations

import argparse
import json

TEXT = "what is installed here, what is wrong with it, and what to type"
DETAILS = """\
Nothing is changed, started or ended, and no run file is needed: `python -m recipe preflight RUN.toml` checks one. The
ids beginning with X are what users of this stack keep reporting; the others are preflight's (docs/PREFLIGHT.md).

examples:
  python -m recipe doctor
  python -m recipe doctor --device npu --json    as a machine with NPUs, whatever is found here

exit code: 0 nothing is wrong (warnings are not); 2 an error was found
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `doctor` command."""
    parser = subparsers.add_parser(
        "doctor", help=TEXT, description=TEXT + ".", epilog=DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--device", choices=("sim", "npu", "cuda"), help="what this machine is for; default: found out")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(handler=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from recipe.doctor import diagnose

    found = diagnose(device=options.device)
    print(json.dumps(found.as_json(), indent=2) if options.json else "\n".join(found.lines()))
    return found.report.exit_code
