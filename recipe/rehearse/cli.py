# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe rehearse RUN.toml`: a step of the run at its true size, on this machine, without contents."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from recipe.runfile.passed.option import add_settings

COMMANDS = ("rehearse",)
TEXT = "a step of a run at its true size on this machine, without contents: memory and traffic counted"
DETAILS = """\
From the run file alone: no weights, no data, no cluster, no network. One die of each pipeline stage is rehearsed, in a
process of its own, in which verl's own workers do a step on simulated dies whose tensors have sizes and no contents,
in a world in which every other die is this one's mirror. What is counted is set beside what `plan` computes. Results
stay in DIR by stage, so that an interrupted rehearsal goes on where it was.

examples:
  python -m recipe rehearse configs/sim.toml
  python -m recipe rehearse configs/a3_256die_random_init.toml --stage 1
  python -m recipe rehearse configs/a3_256die.toml --prompt-tokens 175 --response-tokens 1385 --json
  python -m recipe rehearse configs/a3_256die.toml --expert-load 2    where a die's experts get twice their share

exit code: 0 rehearsed, also when it does not fit (the page says so); 1 a stage could not be rehearsed; 2 a run file
that cannot be rehearsed; 130 interrupted
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `rehearse` command."""
    parser = subparsers.add_parser(
        "rehearse", help=TEXT, description=TEXT + ".", epilog=DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("config", type=Path, metavar="RUN.toml", help="a run file; docs/CONFIG.md has its keys")
    parser.add_argument("--stage", type=int, action="append", metavar="K", help="this stage only, from 0; repeatable")
    parser.add_argument(
        "--steps", type=int, metavar="N",
        help="steps; the last one is counted (default: 1, or 2 where updates have the optimizer on the die)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print everything as JSON, bytes and seconds")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for results and logs; default: runs/rehearsals/NAME")
    limit = "(default: the limit)"
    parser.add_argument("--prompt-tokens", type=int, metavar="N", help=f"tokens of every prompt {limit}")
    parser.add_argument("--response-tokens", type=int, metavar="N", help=f"tokens of every answer {limit}")
    parser.add_argument(
        "--lengths", type=Path, metavar="FILE",
        help="CSV with a histogram of both, part,tokens,count, instead (docs/REHEARSAL.md)",
    )  # fmt: skip
    parser.add_argument(
        "--expert-load", type=float, default=1.0, metavar="X",
        help="the experts of the rehearsed die are sent X times their even share of tokens (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--micro-batches", type=int, metavar="N",
        help="of the update (default: as many as are in flight at once, and one)",
    )  # fmt: skip
    parser.add_argument(
        "--rollout", choices=("once", "every", "none"), default="once",
        help="generation, with the switch to it: on the first stage rehearsed, on every one, on none (default: once)",
    )  # fmt: skip
    parser.add_argument(
        "--decode-steps", type=int, default=3, metavar="N", help="tokens generated of each answer (default: 3)"
    )
    parser.add_argument(
        "--save", action=argparse.BooleanOptionalAction, default=None,
        help="a checkpoint after the last step, all but its files (default: if the run file saves any)",
    )  # fmt: skip
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="stages at a time (default: 1)")
    add_settings(parser)
    parser.set_defaults(handler=_rehearse)


def _rehearse(options: argparse.Namespace) -> int:
    from recipe.command import run_command
    from recipe.runfile.paths import runs_dir
    from recipe.stopping import raise_on_stop_signals

    raise_on_stop_signals()
    return run_command(lambda: _print(options), runs_dir())


def _print(options: argparse.Namespace) -> None:
    from recipe.clock import Clock
    from recipe.files import write_atomically
    from recipe.rehearse.conduct import rehearse_stages, seconds_of_stages
    from recipe.rehearse.page import Times, as_json, as_text
    from recipe.rehearse.subject import Options, rehearsed
    from recipe.runfile.config import load
    from recipe.runfile.derive import derive_run
    from recipe.runfile.errors import ConfigError
    from recipe.runfile.paths import require_verl, runs_dir, upstream_dir

    for name in ("steps", "micro_batches", "decode_steps", "jobs"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {value}; expected 1 or more")
    if not 0 <= options.expert_load < float("inf"):
        raise ConfigError(f"--expert-load {options.expert_load:g}; expected 0 or more")
    config = load(options.config, options.settings)
    _ = derive_run(config).passed  # it refuses what verl does not take
    asked = Options(
        stages=None if options.stage is None else tuple(sorted(set(options.stage))),
        steps=options.steps,
        prompt=options.prompt_tokens,
        response=options.response_tokens,
        lengths=options.lengths,
        expert_load=options.expert_load,
        micro_batches=options.micro_batches,
        rollout=options.rollout,
        decode_steps=options.decode_steps,
        save=options.save,
    )
    require_verl(upstream_dir())
    run = rehearsed(config, asked, upstream_dir())
    directory = options.out or runs_dir() / "rehearsals" / config.run.name
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    clock = Clock(sys.stderr)
    results = rehearse_stages(run, directory, clock.say, options.jobs)
    times = Times(seconds_of_stages(run, directory, results), time.monotonic() - start)
    made = as_json(run, results, times)
    write_atomically(directory / "rehearsal.json", json.dumps(made, indent=2))
    print(json.dumps(made, indent=2) if options.json else as_text(run, results, times))
