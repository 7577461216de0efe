# SPDX-License-Identifier: Apache-2.0
"""DeepSeek-V3-671B as published, without its weights: config.json, index and safetensors headers, in sparse files.

    python -m recipe.tiny.published DIRECTORY

The files have the length of real ones and take no disk. What a dry run plans from them is what it would plan for the
real model. They hold nothing, config.json says so, and the weight tools do no more with them than that.
"""

from __future__ import annotations

import argparse
import json
import math
import struct
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recipe.models.published import CONFIGS
from recipe.weights import deepseek_v3
from recipe.weights.hf_checkpoint import HEADERS_ONLY, INDEX_NAME, ITEM_BYTES

CONFIG = CONFIGS["deepseek_v3_671b"]
# The published shards are up to 4.3 GB.
FILE_BYTES = 4_300_000_000

TensorSpec = tuple[str, str, tuple[int, ...]]


def tensors(config: dict[str, Any]) -> Iterator[TensorSpec]:
    """(name, safetensors dtype, shape) of every tensor of the FP8 checkpoint, prediction layers and scales included."""
    layers, extra = config["num_hidden_layers"], config.get("num_nextn_predict_layers", 0)
    hidden, vocabulary = config["hidden_size"], config["vocab_size"]
    places = deepseek_v3.layout({**config, "num_hidden_layers": layers + extra}).places
    seen = set()
    for place in places:
        if place.hf_name not in seen:
            seen.add(place.hf_name)
            yield from _with_scale(place.hf_name, place.hf_shape)
    for number in range(layers, layers + extra):
        for name, shape in (
            ("embed_tokens.weight", (vocabulary, hidden)),
            ("enorm.weight", (hidden,)),
            ("hnorm.weight", (hidden,)),
            ("eh_proj.weight", (hidden, 2 * hidden)),
            ("shared_head.norm.weight", (hidden,)),
            ("shared_head.head.weight", (vocabulary, hidden)),
        ):
            yield f"model.layers.{number}.{name}", "BF16", shape


def _with_scale(name: str, shape: tuple[int, ...]) -> Iterator[TensorSpec]:
    """The projections of attention and MLP are FP8, the router's bias is float32, all else bfloat16."""
    if name.endswith(("_proj.weight", ".kv_a_proj_with_mqa.weight")):
        yield name, "F8_E4M3", shape
        yield name + "_scale_inv", "F32", (math.ceil(shape[0] / 128), math.ceil(shape[1] / 128))
    else:
        yield name, "F32" if name.endswith(".e_score_correction_bias") else "BF16", shape


def _shards(listed: Iterable[TensorSpec], file_bytes: int) -> list[list[TensorSpec]]:
    shards: list[list[TensorSpec]] = [[]]
    size = 0
    for tensor in listed:
        nbytes = math.prod(tensor[2]) * ITEM_BYTES[tensor[1]]
        if shards[-1] and size + nbytes > file_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += nbytes
    return shards


def write_headers(directory: Path, config: dict[str, Any], file_bytes: int = FILE_BYTES) -> int:
    """Make the checkpoint of `config` without contents in a new directory; returns the bytes of all tensors.

    With `HEADERS_ONLY` in it, a dry run takes it as it is; without, it is for the caller to fill.
    """
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    shards = _shards(tensors(config), file_bytes)
    weight_map: dict[str, str] = {}
    total = 0
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):06d}.safetensors"
        header: dict[str, Any] = {}
        at = 0
        for name, dtype, shape in shard:
            end = at + math.prod(shape) * ITEM_BYTES[dtype]
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
            weight_map[name] = file
            at = end
        raw = json.dumps(header, separators=(",", ":")).encode()
        with (directory / file).open("wb") as stream:
            stream.write(struct.pack("<Q", len(raw)) + raw)
            stream.truncate(8 + len(raw) + at)
        total += at
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX_NAME).write_text(json.dumps(index, indent=2), encoding="utf-8")
    return total


def main(arguments: list[str] | None = None) -> int:
    """The command line; 2 when the directory cannot be made."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path, help="a new directory")
    directory = parser.parse_args(arguments).directory
    try:
        total = write_headers(directory, CONFIG | {HEADERS_ONLY: True})
    except OSError as error:
        print(f"error: {directory}: cannot be made ({error.strerror}); name a new directory", file=sys.stderr)
        return 2
    print(f"{total} bytes of tensors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
