# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe mismatch RUN_DIR --step K`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

COMMANDS = ("mismatch",)
_AUTOLOAD = "TORCH_DEVICE_BACKEND_AUTOLOAD"
TEXT = "where rollout and actor come apart in a step of a run: hidden states, routes and probabilities"
DETAILS = """\
The step is computed again, from the run's last checkpoint before it or else from its beginning, with hooks on the
layers and routers of both engines: vLLM's while it samples, Megatron-core's in the pass for the old log-probabilities.
Tokens and weights are the same in both. Then the actor's pass is repeated with the experts that the rollout chose. The
records (11 MB a step of configs/sim.toml) stay in RUN_DIR/mismatch/ and are not made twice; what the rerun prints goes
to standard error. That it was the same run is checked by the step's metrics. One machine, no compiled graphs.

what is printed:
  cause            "no dip": Pearson is at least 0.999. "routing flips": over half of what it lacks to 1 is gone when
                   the actor takes the rollout's routes. "not routing": anything else
  1 - Pearson      half the mean square difference of the standardised probabilities: each token has its part in it
  flips            positions at which the engines chose other experts, in any layer or in one; "first here": in no
                   earlier one. "the rest", with several steps: Pearson without the tokens sampled from such positions
  margin           by how much the last expert chosen was above the first not chosen, in score with bias; median
  hidden           distance of the residual streams behind a layer, relative to their length; median and largest, of
                   positions without and with a flip of their own so far
  guard            whether flips, and what is left without them, are within the bounds of docs/MISMATCH.md
  |dp|, |dlogp|    difference of a sampled token's two probabilities, and of their logarithms

examples:
  python -m recipe mismatch runs/sim --step 13
  python -m recipe mismatch runs/sim --steps 1-20       all of them in one rerun, a line each
  python -m recipe mismatch runs/sim --steps 3,10-12 --json > steps.json

exit code: 0 compared; 1 the rerun failed, or was not the same run; 2 no such run or step, or nothing to compare in it
"""


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the `mismatch` command."""
    parser = subparsers.add_parser(
        "mismatch", help=TEXT, description=TEXT + ".", epilog=DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="a run's directory, runs/NAME")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--step", metavar="K", help="one step, in full")
    which.add_argument("--steps", metavar="K-L", help="several steps, a line each")
    parser.add_argument("--tokens", type=int, default=5, metavar="N", help="so many of the worst tokens (default: 5)")
    parser.add_argument("--again", action="store_true", help="record anew what is recorded already")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    parser.set_defaults(handler=_mismatch)


def _mismatch(options: argparse.Namespace) -> int:
    from recipe.command import run_command
    from recipe.runfile.paths import runs_dir

    return run_command(lambda: _print(options), runs_dir())


def _print(options: argparse.Namespace) -> None:
    from recipe.mismatch.steps import parse_steps
    from recipe.runfile.errors import ConfigError

    text = options.step if options.steps is None else options.steps
    try:
        steps = parse_steps(text)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if options.steps is None and len(steps) != 1:
        raise ConfigError(f"--step {text}: expected one step; --steps takes several")
    if options.tokens < 0:
        raise ConfigError(f"--tokens {options.tokens}: expected a number that is not negative")
    _compare(options, steps)


@contextlib.contextmanager
def _no_device() -> Iterator[None]:
    """torch imported meanwhile sets up no device, which would say so: what is read here is on the host."""
    before = os.environ.get(_AUTOLOAD)
    os.environ[_AUTOLOAD] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_AUTOLOAD]
        else:
            os.environ[_AUTOLOAD] = before


def _compare(options: argparse.Namespace, steps: Sequence[int]) -> None:
    with _no_device():
        from recipe.mismatch.alignment import align
        from recipe.mismatch.comparison import compare
        from recipe.mismatch.guard import beyond
        from recipe.mismatch.page import page, sweep
        from recipe.mismatch.rerun import record_again, records_of, require_steps
        from recipe.mismatch.words import decoder

    run_dir = options.run_dir.absolute()
    require_steps(run_dir, steps)
    missing = [step for step in steps if options.again or not records_of(run_dir, step).is_dir()]
    if missing:
        record_again(run_dir, missing)
    comparisons = [compare(step, align(records_of(run_dir, step)), options.tokens) for step in steps]
    if options.json:
        print(json.dumps([one.as_json() | {"beyond_guard": beyond(one)} for one in comparisons], indent=2))
    elif options.steps is None:
        print("\n".join(page(comparisons[0], decoder(run_dir))))
    else:
        print("\n".join(sweep(comparisons)))
    sys.stdout.flush()
