# SPDX-License-Identifier: Apache-2.0
"""Safetensors files and their index as outputs of a job."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from recipe.weights.hf_checkpoint import INDEX_NAME, ITEM_BYTES
from recipe.weights.job import Literal, OutputFile, Part

# Readers map the file: a tensor that starts on a page is read without its neighbours.
_PAGE = 4096


@dataclass(frozen=True, slots=True)
class OutTensor:
    """A tensor to be written: `parts` make its bytes, in order."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    parts: tuple[Part, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def safetensors_file(name: str, tensors: Iterable[OutTensor]) -> OutputFile:
    """The file of these tensors.

    The format allows no holes, so tensors of whole pages come first and the header is filled up to a page: these all
    start on one. The others follow, those of wider elements first, each at a multiple of its element's size.
    """
    ordered = sorted(tensors, key=lambda t: (t.nbytes % _PAGE != 0, -ITEM_BYTES[t.dtype]))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in ordered:
        header[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [at, at + tensor.nbytes],
        }
        at += tensor.nbytes
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-(8 + len(raw)) % _PAGE)
    parts: Sequence[Part] = [part for tensor in ordered for part in tensor.parts]
    return OutputFile(name, [Literal(struct.pack("<Q", len(raw)) + raw), *parts])


def index_file(files: Mapping[str, Iterable[OutTensor]]) -> tuple[str, bytes]:
    """(name, content) of the index over files of tensors; total_size counts bytes."""
    weight_map: dict[str, str] = {}
    total = 0
    for file, tensors in files.items():
        for tensor in tensors:
            weight_map[tensor.name] = file
            total += tensor.nbytes
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    return INDEX_NAME, (json.dumps(index, indent=2, ensure_ascii=False) + "\n").encode()
