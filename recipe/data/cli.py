# SPDX-License-Identifier: Apache-2.0
"""``python -m recipe data`` and ``scripts/json_to_parquet.py``."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from recipe.data.formats import FORMATS
from recipe.data.truths import DROP, UNREADABLE
from recipe.reward.verifiers import DEFAULT, VERIFIERS

COMMANDS = ("data",)
DESCRIPTION = "Convert math problems with known answers into train.parquet and test.parquet for verl."
EPILOG = """\
input: a JSON list of records, JSON lines, either of them gzipped, or Parquet; told by content, not by name.
formats:
{formats}
Records without a problem or an answer, repeated problems, and answers that the reward cannot match are left out and
counted. Anything else that is wrong ends the conversion with one line and exit code 2, and nothing is written. Equal
input and options give equal files.

examples:
  json_to_parquet.py --json_path deepscaler.json --output_dir data/deepscaler
  json_to_parquet.py --json_path train.jsonl --output_dir out --format gsm8k --test-size 500 --report out/report.json
  json_to_parquet.py --json_path mine.parquet --output_dir out --map-keys '{{"prompt": "question", "answer": "label"}}'
  json_to_parquet.py --json_path deepscaler.json --output_dir out --tokenizer MODEL --max-prompt-tokens 1024 --dry-run
"""


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {value}")
    return value


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, shared by both ways in."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    rules = "\n".join(f"  {form.name:15} {form.rule}" for form in FORMATS.values())
    parser.epilog = EPILOG.format(formats=rules)
    file = parser.add_argument_group("files")
    file.add_argument(
        "--json_path", type=Path, default=Path("deepscaler.json"), metavar="FILE",
        help="the problems (default: %(default)s, here)",
    )  # fmt: skip
    file.add_argument("--output_dir", type=Path, required=True, metavar="DIR", help="where the two files go")
    split = parser.add_argument_group("split")
    split.add_argument("--train_data_ratio", type=float, default=0.9, metavar="R", help="share of train (default 0.9)")
    split.add_argument("--test-size", type=_count, metavar="N", help="rows of the test split, instead of the ratio")
    split.add_argument("--test_json_path", type=Path, metavar="FILE", help="the test split is this file, as it stands")
    split.add_argument("--seed", type=int, default=42, help="of the shuffle before the split (default 42)")
    schema = parser.add_argument_group("schema")
    schema.add_argument(
        "--format", choices=FORMATS, default="deepscaler", help="schema of the records (default deepscaler)"
    )
    schema.add_argument(
        "--map-keys",
        metavar="JSON",
        help="other keys than the format's: an object of prompt, query, answer (or response), solution, system and the "
        "key of each, with dots for nested ones; an empty key is none",
    )
    add_options(parser)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those that fit whatever files and schema."""
    out = parser.add_argument_group("output")
    out.add_argument("--report", type=Path, metavar="FILE.json", help="write counts, lengths and samples there")
    out.add_argument("--dry-run", action="store_true", help="read, check and print the summary; write no Parquet")
    what = parser.add_argument_group("records")
    what.add_argument(
        "--data_source", metavar="NAME", help="the data_source column (default: verl's name for the format)"
    )
    what.add_argument(
        "--verifier", choices=sorted(VERIFIERS), default=DEFAULT, metavar="NAME",
        help="the run's reward, which must be able to match the answers (default %(default)s; docs/REWARDS.md has all)",
    )  # fmt: skip
    what.add_argument(
        "--unreadable", choices=UNREADABLE, default=DROP,
        help=f"what to do with problems whose answer it cannot match (default {DROP})",
    )  # fmt: skip
    prompt = parser.add_argument_group("prompt")
    prompt.add_argument(
        "--template",
        default="r1_zero",
        metavar="NAME|FILE",
        help="r1_zero, plain, boxed_cot, answer_line (all in data/templates.toml), or FILE.toml[:NAME] of your own "
        "(default %(default)s)",
    )
    prompt.add_argument("--tokenizer", type=Path, metavar="DIR", help="model directory, to count tokens")
    prompt.add_argument(
        "--chat-template", type=Path, metavar="FILE",
        help="Jinja file to render with, instead of the tokenizer's own; needs --tokenizer",
    )  # fmt: skip
    prompt.add_argument(
        "--max-prompt-tokens", type=_count, metavar="N", help="leave out longer ones; needs --tokenizer"
    )


def run(args: argparse.Namespace) -> int:
    """Converts; returns the exit code (2 and one line on stderr when the input cannot be used)."""
    from recipe.data import summary
    from recipe.data.formats import get_format, parse_map_keys
    from recipe.data.parquet import convert
    from recipe.data.rows import DataError, Row
    from recipe.data.templates import get_template
    from recipe.data.tokens import PromptTokens
    from recipe.text import spelled_out

    show = _ProgressLine()
    try:
        if args.max_prompt_tokens is not None and args.tokenizer is None:
            raise DataError("--max-prompt-tokens needs --tokenizer DIR, to count with")
        if args.chat_template is not None and args.tokenizer is None:
            raise DataError("--chat-template needs --tokenizer DIR, to render with")
        if args.test_size is not None and args.test_json_path is not None:
            raise DataError("--test-size and --test_json_path both say what the test split is; give one")
        if args.report is not None and args.report.is_dir():
            raise DataError(f"--report: {args.report} is a directory; give a file")
        template = get_template(args.template)
        form = get_format(args.format, parse_map_keys(args.map_keys) if args.map_keys else None)
        if form.paths.get("system") and "{system}" not in template.chat:
            raise DataError(
                f"--map-keys: system: the chat of template '{template.name}' has no {{system}} to put it in"
            )
        tokens = None if args.tokenizer is None else PromptTokens(args.tokenizer, args.chat_template)
        made = convert(
            args.json_path,
            args.output_dir,
            template,
            form=form,
            train_data_ratio=args.train_data_ratio,
            test_size=args.test_size,
            seed=args.seed,
            test_json_path=args.test_json_path,
            data_source=args.data_source,
            tokens=tokens,
            max_prompt_tokens=args.max_prompt_tokens,
            verifier=args.verifier,
            unreadable=args.unreadable,
            dry_run=args.dry_run,
            progress=show,
        )
        show.clear()
        settings = {
            "format": form.name,
            "keys": dict(form.paths),
            "template": args.template,
            "seed": args.seed,
            "split": "file" if args.test_json_path else args.test_size or args.train_data_ratio,
            "data_source": args.data_source or form.source,
            "max_prompt_tokens": args.max_prompt_tokens,
            "verifier": args.verifier,
            "unreadable": args.unreadable,
        }

        def render(row: Row) -> str:
            problem, system = row.problem, row.system
            return template.text(problem, system) if tokens is None else tokens.text(template, problem, system)

        facts = summary.report(made, settings, render, written=not args.dry_run)
        if args.report is not None:
            summary.write_report(args.report, facts)
    except (DataError, OSError) as error:
        show.clear()
        print(f"error: {spelled_out(' '.join(str(error).split()))}", file=sys.stderr)
        return 2
    print("\n".join(summary.lines(made, facts)))
    return 0


class _ProgressLine:
    """Says what is being done: in place on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = time.monotonic()
        self._shown = False

    def __call__(self, what: str, done: int) -> None:
        now = time.monotonic()
        if now - self._last < (0.2 if self._terminal else 10):
            return
        self._last, self._shown = now, True
        text = f"{what}: {done:,} records"
        start, end = ("\r\x1b[K", "") if self._terminal else ("", "\n")
        print(f"{start}{text}", end=end, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self._terminal and self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the ``data`` command."""
    parser = subparsers.add_parser("data", help="JSON problems to Parquet", description=DESCRIPTION)
    add_arguments(parser)
    parser.set_defaults(handler=command)


def command(args: argparse.Namespace) -> int:
    """``run`` as a process of its own: a signal to end it clears its files away."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not in UTF-8
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        return run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminated(number: int, frame: Any) -> NoReturn:
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """The command line of ``scripts/json_to_parquet.py``."""
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    add_arguments(parser)
    return command(parser.parse_args(argv))
