# SPDX-License-Identifier: Apache-2.0
"""``scripts/math_lighteval.py``: a directory of MATH-lighteval, with its own split, to Parquet for verl."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from recipe.data import cli
from recipe.data.rows import DataError
from recipe.data.write import TEST, TRAIN
from recipe.text import printable

DESCRIPTION = "Convert a directory of MATH-lighteval into train.parquet and test.parquet for verl."
EPILOG = """\
The problems are those of json_to_parquet.py --format math_lighteval, in the directory's own split.

examples:
  scripts/math_lighteval.py --input_dir MATH-lighteval --local_dir MATH-lighteval
  scripts/math_lighteval.py --input_dir IN --local_dir OUT --tokenizer MODEL --max-prompt-tokens 2048 --dry-run

exit code: 0 converted; 2 the directory cannot be used (one line says why), and nothing is written
"""
# Where a hub's client puts the files of a data set: those of the configuration "default" are in data/.
PLACES = ("data", ".")
ENDINGS = (".parquet", ".json", ".jsonl", ".json.gz", ".jsonl.gz")


def split_file(directory: Path, split: str, written: Path) -> Path:
    """The one file of ``directory`` or its ``data/`` with the rows of ``split``; never the one that is ``written``.

    Raises:
        DataError: there is none, or there are several.
    """
    for place in PLACES:
        here = directory / place
        found = [
            file for file in sorted(here.glob("*") if here.is_dir() else ())
            if re.match(rf"{split}(?![a-z])", file.name) and file.name.endswith(ENDINGS)
            and file.resolve() != written.resolve()
        ]  # fmt: skip
        if len(found) > 1:
            names = ", ".join(file.name for file in found[:3])
            raise DataError(f"{here}: {len(found)} files of the split {split} ({names}); expected one")
        if found:
            return found[0]
    raise DataError(
        f"--input_dir: {directory} has no {split}*.parquet, and no {split}*.json, there or in data/; give that of the "
        "data set, or a file to json_to_parquet.py"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 after one line on stderr."""
    parser = argparse.ArgumentParser(
        description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    file = parser.add_argument_group("files")
    file.add_argument("--input_dir", type=Path, required=True, metavar="DIR", help="the data set's directory")
    file.add_argument("--local_dir", type=Path, required=True, metavar="DIR", help="where the two files go")
    cli.add_options(parser)
    parser.set_defaults(
        format="math_lighteval", map_keys=None, verifier="math_lighteval", template="boxed_cot",
        train_data_ratio=0.9, test_size=None, seed=0,  # of a split that is not made here
    )  # fmt: skip
    options = parser.parse_args(argv)
    options.output_dir = options.local_dir
    try:
        options.json_path = split_file(options.input_dir, "train", options.local_dir / TRAIN)
        options.test_json_path = split_file(options.input_dir, "test", options.local_dir / TEST)
    except DataError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    return cli.command(options)
