# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe tokenizer-json`: a tiktoken tokenizer as the libraries load it without foreign code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recipe.text import printable
from recipe.tokenizer.pattern import Literals, read_literals, read_pattern_file
from recipe.tokenizer.ranks import NAME, read_ranks
from recipe.tokenizer.special_tokens import special_tokens
from recipe.weights.errors import WeightsError
from recipe.weights.new_file import is_written, write, write_new
from recipe.weights.wholeness import read_json

COMMANDS = ("tokenizer-json",)

TEXT = "write tokenizer.json for a model that comes with tiktoken.model and code of its own (Moonlight, Kimi-K2)"
DETAILS = """\
Read are tiktoken.model, tokenizer_config.json, config.json, and as text, without running any of it, the pattern in
tokenization_*.py. Written are tokenizer.json, and tokenizer_config.json without auto_map; its chat template and all
else in it stay. Before anything is written, about 1,000 texts must have the ids of byte-pair encoding by the ranks.

examples:
  python -m recipe tokenizer-json /models/Moonlight-16B-A3B --dry-run              check, and write nothing
  python -m recipe tokenizer-json /models/Moonlight-16B-A3B                        beside the files of the model
  python -m recipe tokenizer-json /models/Moonlight-16B-A3B --out /models/plain    into another directory
  python -m recipe tokenizer-json /models/Kimi-K2 --pattern-file pattern.txt       the pattern from a file of one line

exit code: 0 they are there, or would be; 2 MODEL_DIR cannot be used, or DIR has other files of these names
"""
ORIGINAL = "tokenizer_config.original.json"
_TEMPLATE = "chat_template.jinja"


@dataclass(frozen=True)
class Made:
    """The files' contents, and what is known of the tokenizer, in a line."""

    tokenizer: bytes
    config: bytes
    summary: str


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    parser = subparsers.add_parser(
        "tokenizer-json",
        help=TEXT,
        description=TEXT + ".",
        epilog=DETAILS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("directory", type=Path, metavar="MODEL_DIR", help="a directory with tiktoken.model")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help=f"write there (default: MODEL_DIR, whose tokenizer_config.json is kept as {ORIGINAL})",
    )
    parser.add_argument(
        "--pattern-file", type=Path, metavar="FILE", help="the pattern, in place of that in tokenization_*.py"
    )
    parser.add_argument("--dry-run", action="store_true", help="make and check all of it, and write nothing")
    parser.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Make, check and write it; returns 0, or 2 after one line on stderr."""
    source = options.directory.expanduser()
    out = source if options.out is None else options.out.expanduser()
    try:
        made = make(source, options.pattern_file)
        print(printable(made.summary))
        for line in [] if options.dry_run else save(made, source, out):
            print(printable(line))
    except WeightsError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    return 0


def make(source: Path, pattern_file: Path | None = None) -> Made:
    """tokenizer.json and tokenizer_config.json for the tiktoken tokenizer in a directory, checked.

    Raises:
        WeightsError: a file is missing or not what it should be, the files do not fit each other, or the ids of a text
            are not those of byte-pair encoding by the ranks.
    """
    from recipe.tokenizer.byte_pairs import BytePairs, compare
    from recipe.tokenizer.fast import fast_tokenizer, plain_tokenizer_config

    config = read_json(source / "tokenizer_config.json", "tokenizer_config.json")
    vocab_size = read_json(source / "config.json", "config.json").get("vocab_size")
    if type(vocab_size) is not int:
        raise WeightsError(f"{source / 'config.json'}: vocab_size is {vocab_size!r}; expected the embedding's rows")
    ranks = read_ranks(source / NAME)
    said = read_literals(source) if pattern_file is None else Literals(read_pattern_file(pattern_file), None)
    try:
        tokens = special_tokens(config, len(ranks), said.reserved or 0, vocab_size)
        tokenizer = fast_tokenizer(ranks, said.pattern, tokens)
        texts = compare(tokenizer, BytePairs(ranks, said.pattern, tokens))
    except WeightsError as error:
        raise WeightsError(f"{source}: {error}") from None
    summary = (
        f"{source}: {len(ranks)} ranks, {len(tokens)} special tokens, vocab_size {vocab_size}; {texts} texts have the "
        "ids that byte-pair encoding by the ranks gives"
    )
    return Made(tokenizer.to_str().encode(), plain_tokenizer_config(config, tokens), summary)


def save(made: Made, source: Path, out: Path) -> Iterator[str]:
    """Write the files, tokenizer_config.json last; what was done with each, in a line.

    Raises:
        WeightsError: there are others that would be lost, or one cannot be written.
    """
    others = {out / "tokenizer.json": made.tokenizer}
    config = out / "tokenizer_config.json"
    in_place = out.resolve() == source.resolve()
    template = source / _TEMPLATE
    try:
        before = config.read_bytes() if in_place else made.config
        if not in_place and template.is_file():
            others[out / _TEMPLATE] = template.read_bytes()
    except OSError as error:
        raise WeightsError(f"{error.filename}: cannot be read ({error.strerror})") from None
    if before != made.config:
        others[out / ORIGINAL] = before
    for file, content in others.items() if in_place else [*others.items(), (config, made.config)]:
        is_written(file, content)
    for file, content in others.items():
        yield write_new(file, content)
    yield write(config, made.config) if before != made.config else write_new(config, made.config)
