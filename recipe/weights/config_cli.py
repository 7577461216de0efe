# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe model-config`: config.json as the training reads it, made without any weights."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from recipe.models.published import CONFIGS
from recipe.text import printable
from recipe.weights.errors import WeightsError
from recipe.weights.hf_directory import dtype_of, plain_config
from recipe.weights.key_maps import require_described
from recipe.weights.new_file import write_new
from recipe.weights.wholeness import read_json

TEXT = (
    "write config.json without quantisation and multi-token prediction, from a directory or by name; needs no weights"
)
DETAILS = f"""\
verl refuses a config.json with a quantization_config or with layers for multi-token prediction; these are the only
fields that change, and the weights' type where they were quantised. The casts and conversions write the same file
beside their weights. A run with random weights needs this file and a tokenizer alone.

examples:
  python -m recipe model-config /models/DeepSeek-V3-Base                       print it
  python -m recipe model-config /models/DeepSeek-V3-Base --out /models/plain   write /models/plain/config.json
  python -m recipe model-config {min(CONFIGS)} --out /models/plain           the published sizes, from no file

exit code: 0 it is there; 2 SRC cannot be used, or DIR has another config.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, and what the command does."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = DETAILS
    parser.add_argument(
        "source", metavar="SRC", help=f"a Hugging Face directory, or the name of an architecture: {', '.join(CONFIGS)}"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write DIR/config.json (default: print it)")
    parser.set_defaults(handler=run)


def run(options: argparse.Namespace) -> int:
    """Print or write it; returns 0, or 2 after one line on stderr."""
    try:
        config = source_config(options.source)
        content = plain_config(config, dtype_of(config))
        if options.out is None:
            sys.stdout.write(content.decode())
        else:
            print(printable(write_new(options.out / "config.json", content)))
    except WeightsError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 2
    return 0


def source_config(source: str) -> dict[str, Any]:
    """The config.json in a directory, or the published one of an architecture.

    Raises:
        WeightsError: there is neither, or the model cannot be trained here.
    """
    directory = Path(source).expanduser()
    if directory.is_dir():
        config = read_json(directory / "config.json", "config.json")
        require_described(config, directory / "config.json")
        return config
    if source in CONFIGS:
        return CONFIGS[source]
    raise WeightsError(
        f"{source}: no such directory, and no architecture that is known here ({', '.join(CONFIGS)}); name the "
        "directory that holds config.json"
    )
