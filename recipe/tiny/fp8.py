# SPDX-License-Identifier: Apache-2.0
"""A DeepSeek-V3 of any size with random weights, in FP8 and in the files and names of the published checkpoint."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recipe.tiny.config import Fp8Model
from recipe.tiny.published import write_headers
from recipe.tiny.tokenizer import save_tokenizer
from recipe.weights.hf_checkpoint import TensorEntry, read_header

_CHUNK = 16 * 2**20


def make_fp8_model(settings: Fp8Model, out: Path, progress: Callable[[str], None]) -> int:
    """Write the checkpoint with its tokenizer to the new directory `out`; returns the bytes of its tensors.

    `out` appears whole or not at all. Raises FileExistsError when it exists and holds anything.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists already; choose another directory, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        model = work / "model"
        total = write_headers(model, settings.config(), settings.shard_bytes)
        save_tokenizer(model)
        files = sorted(model.glob("*.safetensors"))
        for number, file in enumerate(files):
            _fill(file, np.random.Generator(np.random.SFC64([settings.seed, number])))
            progress(f"{file.name}: {file.stat().st_size} bytes")
        if out.exists():
            out.rmdir()
        model.rename(out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return total


def _fill(file: Path, rng: np.random.Generator) -> None:
    entries = sorted(read_header(file).values(), key=lambda entry: entry.begin)
    with file.open("r+b") as stream:
        for entry in entries:
            stream.seek(entry.begin)
            for at in range(0, entry.nbytes, _CHUNK):
                stream.write(_values(entry, min(_CHUNK, entry.nbytes - at), rng).data)


def _values(entry: TensorEntry, nbytes: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random numbers of the size weights have: about 0.02, norms about 1, every finite byte of e4m3."""
    raw = rng.integers(0, 2**64, -(-nbytes // 8), dtype=np.uint64).view(np.uint8)[:nbytes]
    if entry.dtype == "F8_E4M3":
        raw[(raw & 0x7F) == 0x7F] ^= 1
        return raw
    if entry.dtype == "F32":
        # The bytes are up to 448, 80 on average: scales of 1e-4 to 4e-4.
        low, high = (-0.01, 0.01) if entry.name.endswith("_bias") else (1e-4, 4e-4)
        numbers = rng.uniform(low, high, nbytes // 4).astype(np.float32)
        return numbers.view(np.uint8)
    bits = raw.view(np.uint16)
    if len(entry.shape) == 1:
        bits[:] = 0x3F80 | bits & 0x7  # 1 to 1.05
    else:
        bits[:] = 0x3C00 | bits & 0x81FF  # 2**-7 to 2**-4, either sign
    return raw
