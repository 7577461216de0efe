# SPDX-License-Identifier: Apache-2.0
"""``python -m recipe tiny-model`` and ``scripts/make_tiny_model.py``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recipe.tiny.config import Fp8Model
from recipe.tiny.members import DEEPSEEK_V3, MEMBERS
from recipe.tiny.sizes import LEGAL, SIZES, SMALLEST

COMMANDS = ("tiny-model",)
DESCRIPTION = """Make a tiny model (1 M parameters) that half knows how to add, with tokenizer and problems;
or, with --fp8, a DeepSeek-V3 of any size with random weights, in the published checkpoint's files, names and FP8."""

EXAMPLES = """\
examples:
  scripts/make_tiny_model.py --out tiny --problems tiny_problems     what the quick start begins with
  scripts/make_tiny_model.py --member qwen3 --out qwen3              grouped-query attention
  scripts/make_tiny_model.py --sizes legal --out legal               what configs/sim_legal.toml trains
  scripts/make_tiny_model.py --fp8 --out tiny_fp8                    FP8 of the smallest size
  scripts/make_tiny_model.py --fp8 --out large --hidden-size 2048 --moe-intermediate-size 2048 --experts 64 \\
      --layers 7 --shard-bytes 640000000                             5 GB

exit code: 0 it is there; 1, 2 it could not be made
"""

# Option, field of Fp8Model, help.
_SIZES = (
    ("--hidden-size", "hidden_size", "width of the model"),
    ("--layers", "layers", "layers, not counting the one for multi-token prediction"),
    ("--dense-layers", "dense_layers", "layers without experts, at the beginning"),
    ("--experts", "experts", "routed experts of a layer"),
    ("--intermediate-size", "intermediate_size", "width of a dense MLP"),
    ("--moe-intermediate-size", "moe_intermediate_size", "width of an expert"),
    ("--heads", "heads", "attention heads"),
    ("--vocabulary", "vocabulary", "rows of the embedding; the tokenizer has 640 tokens"),
    ("--shard-bytes", "shard_bytes", "size of a file"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, shared by both ways in."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXAMPLES
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the Hugging Face directory to make")
    parser.add_argument("--member", choices=MEMBERS, help=f"which model that learns (default {DEEPSEEK_V3})")
    parser.add_argument(
        "--sizes",
        choices=tuple(SIZES),
        help=f"of the {DEEPSEEK_V3} that learns (default {SMALLEST}); {LEGAL}: "
        "14 M parameters, the smallest that an NPU's operators take",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and demonstrations (default 0)")
    parser.add_argument("--warm-start-steps", type=int, metavar="N", help="supervised steps; 0: weights stay random")
    parser.add_argument("--threads", type=int, default=1, help="threads to train with; part of the result (default 1)")
    parser.add_argument("--problems", type=Path, metavar="DIR", help="also write train.json and validation.json there")
    parser.add_argument("--fp8", action="store_true", help="FP8 checkpoint with random weights, of the sizes below")
    sizes = parser.add_argument_group("sizes with --fp8")
    for option, name, text in _SIZES:
        default = getattr(Fp8Model, name)
        sizes.add_argument(option, dest=name, type=int, default=None, help=f"{text} (default {default})", metavar="N")


def run(args: argparse.Namespace) -> int:
    """Builds what the arguments ask for; returns the exit code."""
    from recipe.tiny.build import TinyModel, build_model, write_problems
    from recipe.tiny.warm_start import WARM_STARTS

    sizes = {name: value for _, name, _ in _SIZES if (value := getattr(args, name)) is not None}
    if args.fp8:
        return _run_fp8(args, sizes)
    if sizes:
        print("error: the sizes of the model that learns are fixed; they go with --fp8", file=sys.stderr)
        return 2
    chosen = args.sizes or SMALLEST
    settings = TinyModel(
        sizes=chosen,
        member=args.member or DEEPSEEK_V3,
        seed=args.seed,
        threads=args.threads,
        warm_start=WARM_STARTS[chosen],
    )
    if args.warm_start_steps is not None:
        settings = replace(settings, warm_start=replace(settings.warm_start, steps=args.warm_start_steps))
    try:
        if args.problems is not None:
            for path in write_problems(settings, args.problems):
                print(f"problems: {path}", flush=True)
        build_model(settings, args.out, lambda line: print(line, flush=True))
    except (OSError, ValueError) as error:
        return _refused(args.out, error)
    return 0


def _refused(out: Path, error: OSError | ValueError) -> int:
    text = str(error)
    if isinstance(error, OSError):
        # An OSError may name a temporary file, so the message names the directory that was asked for.
        where = f" ({error.filename})" if error.filename else ""
        text = f"{out} cannot be written: {error.strerror or error}{where}"
    print(f"error: {text}", file=sys.stderr)
    return 2


def _run_fp8(args: argparse.Namespace, sizes: dict[str, int]) -> int:
    from recipe.tiny.fp8 import make_fp8_model

    learning = {"--problems": args.problems, "--warm-start-steps": args.warm_start_steps}
    learning |= {"--member": args.member, "--sizes": args.sizes}
    if given := [option for option, value in learning.items() if value is not None]:
        print(f"error: {', '.join(given)} goes with the model that learns, not with --fp8", file=sys.stderr)
        return 2
    try:
        settings = Fp8Model(seed=args.seed, **sizes)
        total = make_fp8_model(settings, args.out, lambda line: print(line, flush=True))
    except (OSError, ValueError) as error:
        return _refused(args.out, error)
    print(f"{args.out}: {total} bytes of tensors", flush=True)
    return 0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the ``tiny-model`` command."""
    parser = subparsers.add_parser(
        "tiny-model", help="make a tiny model that half knows how to add", description=DESCRIPTION
    )
    add_arguments(parser)
    parser.set_defaults(handler=run)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of ``scripts/make_tiny_model.py``."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    add_arguments(parser)
    return run(parser.parse_args(argv))
