# SPDX-License-Identifier: Apache-2.0
"""The options that `launch`, `node` and `show` share, and what they say."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from recipe.runfile.passed.option import add_settings

if TYPE_CHECKING:
    from recipe.launch.resume import ResumeRequest
    from recipe.runfile.schema import RunConfig

# Answers to other people's problems are longer than sums; the tiny model gets this much room at least.
JSON_RESPONSE_TOKENS = 64


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the run file and the options that replace values of it."""
    parser.add_argument("config", type=Path, metavar="RUN.toml", help="a run file; docs/CONFIG.md has its keys")
    parser.add_argument("--steps", type=int, metavar="N", help="number of steps, instead of the run file's")
    parser.add_argument("--name", help="name of the run and its directory, instead of the run file's")
    parser.add_argument("--seed", type=int, metavar="S", help="seed of model, data order, training and sampling")
    parser.add_argument("--data", type=Path, metavar="FILE.json", help="problems: a DeepScaleR-schema JSON list")
    add_settings(parser)


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


def read_resume_request(options: argparse.Namespace) -> ResumeRequest:
    """What the options of `add_resume_options` ask for."""
    from recipe.launch.resume import ResumeRequest

    return ResumeRequest(options.fresh, options.from_step, options.verify_checkpoint, tuple(options.accept))


def read_config(options: argparse.Namespace, *, with_settings: bool = True) -> RunConfig:
    """The run that the options of `add_run_options` describe; without `with_settings`, as far as verl is not told."""
    from recipe.runfile.config import load, require_name

    config = load(options.config, options.settings if with_settings else ()).with_run(
        steps=options.steps, name=options.name, seed=options.seed
    )
    require_name(config.run.name)
    return config if options.data is None else config.with_json_data(options.data.absolute(), JSON_RESPONSE_TOKENS)
