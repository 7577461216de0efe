# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe launch RUN.toml` and `python -m recipe show RUN.toml`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from recipe.text import printable

if TYPE_CHECKING:
    from recipe.launch.resume import Asked
    from recipe.runfile.schema import RunConfig

# Answers to other people's problems are longer than sums; the tiny model gets this much room at least.
JSON_RESPONSE_TOKENS = 64

RAW = argparse.RawDescriptionHelpFormatter
OF_LAUNCH = """\
Several nodes: scripts/launch.sh on each of them (docs/LAUNCH.md). A run that has a checkpoint goes on from it.

examples:
  python -m recipe launch configs/sim.toml
  python -m recipe launch configs/sim.toml --steps 3 --name short --fresh
  python -m recipe launch configs/sim.toml --data problems.json --name mine
  python -m recipe launch mine.toml --from-step 40 --accept train.learning_rate      another run from step 40 on

exit code: 0 the run finished, now or before; 1 it failed (one line says why, and where the log is); 2 a mistake in the
run file or the options; 3 the watch over the training stopped it (docs/WATCH.md); 130, 143 stopped by Ctrl-C or
SIGTERM. A terminal that is closed does not stop it.
"""
OF_SHOW = """\
examples:
  python -m recipe show configs/a3_256die.toml                      sizes, environment, overrides
  python -m recipe show configs/a3_256die.toml --shell > run.sh     a script that does the same without the launcher

exit code: 0 shown; 2 a mistake in the run file, in what it names here, or in the options: launch would refuse it, too
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both commands."""
    text = "run a run file to its report, on this machine"
    launch = subparsers.add_parser("launch", help=text, description=text + ".", epilog=OF_LAUNCH, formatter_class=RAW)
    add_run_options(launch)
    part = launch.add_mutually_exclusive_group()
    part.add_argument("--check", action="store_true", help="only look at the run file and the problems")
    part.add_argument("--prepare", action="store_true", help="make the model the run starts from, and stop")
    add_resume_options(launch)
    launch.set_defaults(handler=_launch)
    text = "print what is derived from a run file: environment and overrides"
    show = subparsers.add_parser("show", help=text, description=text + ".", epilog=OF_SHOW, formatter_class=RAW)
    add_run_options(show)
    form = show.add_mutually_exclusive_group()
    form.add_argument("--shell", action="store_true", help="as a bash script that sets the environment and starts verl")
    form.add_argument("--json", action="store_true", help="as JSON, with every derived size")
    show.add_argument(
        "--keys", action=_Keys, nargs=0, help="print docs/CONFIG.md, with every key of run files, and exit"
    )
    show.set_defaults(handler=_show)


class _Keys(argparse.Action):
    """Like --help: needs no run file."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from recipe.runfile.config_doc import page

        print(page(), end="")
        parser.exit()


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the run file and the options that replace values of it."""
    parser.add_argument("config", type=Path, metavar="RUN.toml", help="a run file; docs/CONFIG.md has its keys")
    parser.add_argument("--steps", type=int, metavar="N", help="number of steps, instead of the run file's")
    parser.add_argument("--name", help="name of the run and its directory, instead of the run file's")
    parser.add_argument("--seed", type=int, metavar="S", help="seed of model, data order, training and sampling")
    parser.add_argument("--data", type=Path, metavar="FILE.json", help="problems: a DeepScaleR-schema JSON list")


def add_resume_options(parser: argparse.ArgumentParser) -> None:
    """Add what may be asked of a run that has been there before."""
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--fresh", action="store_true", help="begin anew, even if there is a checkpoint to go on from")
    start.add_argument(
        "--from-step",
        type=int,
        metavar="N",
        help="go on from the checkpoint of step N, instead of the newest whole one",
    )
    parser.add_argument(
        "--verify-checkpoint", action="store_true", help="read every byte of the checkpoint and compare its checksums"
    )
    parser.add_argument(
        "--accept", action="append", default=[], metavar="KEY",
        help="go on though this key of the run file differs and changes the run, as in train.learning_rate; repeatable",
    )  # fmt: skip


def read_asked(options: argparse.Namespace) -> Asked:
    """What the options of `add_resume_options` ask for."""
    from recipe.launch.resume import Asked

    return Asked(options.fresh, options.from_step, options.verify_checkpoint, tuple(options.accept))


def _launch(options: argparse.Namespace) -> int:
    return _check(options) if options.check else _make_or_run(options)


def _check(options: argparse.Namespace) -> int:
    """Set-up asks for it before there are packages: with the standard library alone."""
    from recipe.launch.first_look import first_look, require_one_machine
    from recipe.runfile.errors import ConfigError

    try:
        config = read_config(options)
        first_look(config)
        require_one_machine(config, options.config)
    except ConfigError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    return 0


def _make_or_run(options: argparse.Namespace) -> int:
    from recipe.signals import quit_on_stop_signals

    quit_on_stop_signals()
    from recipe.launch.command import run_command
    from recipe.launch.first_look import require_room
    from recipe.launch.prepare import prepare_model
    from recipe.launch.run import launch
    from recipe.launch.signals import raise_on_stop_signals
    from recipe.runfile.paths import cache_dir, runs_dir

    def work() -> None:
        # Until the supervisor takes the signals over, they end what is being made, children included.
        raise_on_stop_signals()
        config = read_config(options)
        if options.prepare:
            require_room(cache_dir())
            prepare_model(config, lambda line: print(printable(line), flush=True), cache_dir() / "prepare.log")
        else:
            launch(config, options.config, asked=read_asked(options))

    return run_command(work, runs_dir())


def _show(options: argparse.Namespace) -> int:
    import json

    from recipe.launch.first_look import first_look
    from recipe.preflight import refusals
    from recipe.runfile.derive import derive_run
    from recipe.runfile.errors import LaunchError
    from recipe.runfile.show import as_json, as_shell, as_text

    try:
        config = read_config(options)
        first_look(config)
        derived = derive_run(config).complete()
    except LaunchError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    refused = refusals(config)
    if refused:
        print("\n".join(f"error: {one.line}" for one in refused), file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(as_json(derived), indent=2))
    else:
        print(as_shell(derived) if options.shell else as_text(derived))
    return 0


def read_config(options: argparse.Namespace) -> RunConfig:
    """The run that the options of `add_run_options` describe."""
    from recipe.runfile.config import load, require_name

    config = load(options.config).with_run(steps=options.steps, name=options.name, seed=options.seed)
    require_name(config.run.name)
    return config if options.data is None else config.with_json_data(options.data.absolute(), JSON_RESPONSE_TOKENS)
