# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe launch RUN.toml` and `python -m recipe show RUN.toml`; `node` is in `node_cli`."""

from __future__ import annotations

import argparse
import sys

from recipe.launch import node_cli
from recipe.launch.options import add_resume_options, add_run_options, read_config, read_resume_request
from recipe.text import printable

COMMANDS = ("launch", "node", "show")

RAW = argparse.RawDescriptionHelpFormatter
OF_LAUNCH = """\
Several nodes: scripts/launch.sh on each of them (docs/LAUNCH.md). A run that has a checkpoint goes on from it.

examples:
  python -m recipe launch configs/sim.toml
  python -m recipe launch configs/sim.toml --steps 3 --name short --fresh
  python -m recipe launch configs/sim.toml --data problems.json --name mine
  python -m recipe launch configs/sim.toml -- trainer.log_val_generations=4          a setting of verl
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
    """Add the three commands."""
    text = "run a run file to its report, on this machine"
    launch = subparsers.add_parser("launch", help=text, description=text + ".", epilog=OF_LAUNCH, formatter_class=RAW)
    add_run_options(launch)
    part = launch.add_mutually_exclusive_group()
    part.add_argument("--check", action="store_true", help="only look at the run file and the problems")
    part.add_argument("--prepare", action="store_true", help="make the model the run starts from, and stop")
    add_resume_options(launch)
    launch.set_defaults(handler=_launch)
    node_cli.register(subparsers)
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
    """Prints the page and exits, as --help does: no run file has to be given."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from recipe.runfile.config_doc import page

        print(page(), end="")
        parser.exit()


def _launch(options: argparse.Namespace) -> int:
    return _check(options) if options.check else _make_or_run(options)


def _check(options: argparse.Namespace) -> int:
    """Look at the run file with the standard library alone: set-up calls this before any package is installed."""
    from recipe.launch.first_look import first_look, require_one_machine
    from recipe.runfile.errors import ConfigError

    try:
        config = read_config(options, with_settings=False)  # Hydra, which reads them, is not installed yet
        first_look(config)
        require_one_machine(config, options.config)
    except ConfigError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return error.exit_code
    return 0


def _make_or_run(options: argparse.Namespace) -> int:
    from recipe.signals import quit_on_stop_signals

    quit_on_stop_signals()
    from recipe.command import run_command
    from recipe.launch.first_look import require_room
    from recipe.launch.prepare import prepare_model
    from recipe.launch.run import launch
    from recipe.runfile.paths import cache_dir, runs_dir
    from recipe.stopping import raise_on_stop_signals

    def work() -> None:
        # Until the supervisor takes the signals over, they end what is being made, children included.
        raise_on_stop_signals()
        config = read_config(options, with_settings=not options.prepare)
        if options.prepare:
            require_room(cache_dir())
            prepare_model(config, lambda line: print(printable(line), flush=True), cache_dir() / "prepare.log")
        else:
            launch(config, options.config, request=read_resume_request(options))

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
        print("\n".join(f"error: {refusal.line}" for refusal in refused), file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(as_json(derived), indent=2))
    else:
        print(as_shell(derived) if options.shell else as_text(derived))
    return 0
