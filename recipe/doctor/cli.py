# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe doctor [RUN_DIR]`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

COMMANDS = ("doctor",)
TEXT = "what is installed here, what is wrong with it, and what to type; or what is wrong with a run's training"
DETAILS = """\
Nothing is changed, started or ended, and no run file is needed: `python -m recipe preflight RUN.toml` checks one. The
ids beginning with X are what users of this stack keep reporting; the others are preflight's (docs/PREFLIGHT.md).

With RUN_DIR the rules of the watch over the training (docs/WATCH.md) look at all steps of that run, finished or not.

examples:
  python -m recipe doctor
  python -m recipe doctor --device npu --json    as a machine with NPUs, whatever is found here
  python -m recipe doctor runs/sim               what the watch says of a run

exit code: 0 nothing is wrong (warnings are not); 2 an error was found, or a rule that stops the run
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `doctor` command."""
    parser = subparsers.add_parser(
        "doctor", help=TEXT, description=TEXT + ".", epilog=DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run_dir", nargs="?", type=Path, metavar="RUN_DIR", help="a run's directory, runs/NAME")
    parser.add_argument("--device", choices=("sim", "npu", "cuda"), help="what this machine is for; default: found out")
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    parser.set_defaults(handler=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    if options.run_dir is not None:
        return _of_run(options)
    from recipe.doctor import diagnose

    diagnosis = diagnose(device=options.device)
    print(json.dumps(diagnosis.as_json(), indent=2) if options.json else "\n".join(diagnosis.lines()))
    return diagnosis.report.exit_code


def _of_run(options: argparse.Namespace) -> int:
    from recipe.doctor.run import diagnose_run
    from recipe.runfile.errors import ConfigError

    try:
        if options.device is not None:
            raise ConfigError("--device is for this machine, not for a run; leave it out, or RUN_DIR")
        diagnosis = diagnose_run(options.run_dir)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(json.dumps(diagnosis.as_json(), indent=2) if options.json else "\n".join(diagnosis.lines()))
    return diagnosis.exit_code
