# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe COMMAND ...`: the one command line of the recipe.

Each room that has a `cli.py` brings the commands that this file names in its `COMMANDS`. Its `register(subparsers)`
adds them; a handler is set with `set_defaults(handler=...)`, takes the parsed options and returns the exit code. Only
the module of the command that is called is imported.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys

from recipe.commands import command_modules
from recipe.own_packages import REPOSITORY, own_packages
from recipe.signals import default_on_stop_signals, quit_on_stop_signals
from recipe.upstreams import upstream_tree

COMMANDS = command_modules()
# KEY=VALUE with the full key of a setting of verl.
_SETTING = re.compile(r"[+~]{0,2}\w+\.[\w.@/-]*=")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code (2: unknown command or options)."""
    if sys.version_info < (3, 10):  # noqa: UP036  (said here, and not by a traceback from the middle of an import)
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        print(f"error: this is Python {version}; the recipe needs 3.10, 3.11 or 3.12", file=sys.stderr)
        return 1
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(
        prog="python -m recipe", description="The recipe's tools.", epilog="`COMMAND --help` has options and examples."
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command in COMMANDS and arguments[0] == command:
        wanted = [COMMANDS[command]]
    else:
        wanted = list(dict.fromkeys(COMMANDS.values()))
    for name in wanted:
        try:
            room = importlib.import_module(name)
        except ModuleNotFoundError as error:
            # Help lists what is there; a missing dependency of the room that was asked for is the user's to know.
            if len(wanted) == 1:
                return _missing(str(command), error)
            continue
        room.register(subparsers)
    options = _parse(parser, arguments)
    default_on_stop_signals()
    try:
        return int(options.handler(options) or 0)
    except ModuleNotFoundError as error:
        # A module of ours that is missing is a defect, and not a package to install.
        if (error.name or "").partition(".")[0] in own_packages():
            raise
        return _missing(options.command, error)


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """The options; where the command takes settings of verl, with all KEY=VALUE at its end, behind `--` or not.

    What comes after `--` is left to the command to judge.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    first = end
    while first and _SETTING.match(arguments[first - 1]):
        first -= 1
    options = parser.parse_args(arguments[:first])
    settings = [*arguments[first:end], *arguments[end + 1 :]]
    if settings and not hasattr(options, "settings"):
        parser.error(f"unrecognized arguments: {' '.join(settings)}")
    if settings:
        options.settings = settings
    return options


def _missing(command: str, error: ModuleNotFoundError) -> int:
    print(
        f"error: {command} needs the module {error.name}, which this Python ({sys.executable}) does not have; use "
        ".venv/bin/python, which `bash scripts/setup.sh` makes",
        file=sys.stderr,
    )
    return 1


def _command() -> int:
    """`main`, for a shell: neither Ctrl-C nor a reader that has seen enough (`| head`) is a traceback."""
    if os.environ.get("RECIPE_UPSTREAM"):  # what we start may have another working directory
        os.environ["RECIPE_UPSTREAM"] = str(upstream_tree(REPOSITORY))
    try:
        try:
            return main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("error: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    quit_on_stop_signals()
    sys.exit(_command())
