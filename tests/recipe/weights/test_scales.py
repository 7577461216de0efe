# SPDX-License-Identifier: Apache-2.0
"""Scales of every dtype that is published: the numbers that torch reads, and the bits that its arithmetic gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from recipe.weights import fp8
from recipe.weights.errors import WeightsError
from recipe.weights.hf_checkpoint import read_header
from recipe.weights.scales import DTYPES, to_float32
from recipe.weights.source import Reader, make_sources

TORCH = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F8_E8M0": torch.float8_e8m0fnu}
KERNELS = {"llvm": fp8.llvm_kernel, "torch": fp8.torch_kernel}
ROWS, COLUMNS = 300, 520


def bits(values: torch.Tensor) -> bytes:
    return values.contiguous().view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_numbers_are_those_of_torch(dtype: str) -> None:
    """Of every byte for E8M0, of all 16-bit patterns; NaN is NaN, whatever its bits."""
    width = TORCH[dtype].itemsize
    count = 256 if width == 1 else 65536
    patterns = np.arange(count, dtype=np.uint64).astype(f"<u{width}")
    if width == 4:
        patterns = np.random.default_rng(1).integers(0, 2**32, count, dtype=np.uint32)
    expected = torch.from_numpy(patterns.view(f"<i{width}").copy()).view(TORCH[dtype]).float()
    found = torch.from_numpy(to_float32(bytearray(patterns.tobytes()), dtype).copy())
    assert torch.equal(found.isnan(), expected.isnan())
    assert bits(found.nan_to_num(1.0, torch.inf, -torch.inf)) == bits(expected.nan_to_num(1.0, torch.inf, -torch.inf))


def published(dtype: str, seed: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (ROWS, COLUMNS), dtype=torch.uint8, generator=generator)
    raw[(raw & 0x7F) == 0x7F] = 0x30
    shape = fp8.scale_shape((ROWS, COLUMNS))
    if dtype == "F8_E8M0":
        # From the least, which is subnormal in float32, to the largest that no product overflows with.
        scale = torch.randint(0, 240, shape, dtype=torch.uint8, generator=generator)
        scale[0, 0], scale[0, 1] = 0, 1
        scale = scale.view(torch.float8_e8m0fnu)
    else:
        scale = (torch.rand(shape, generator=generator) * 1e-3 + 1e-6).to(TORCH[dtype])
    return {"w": raw.view(torch.float8_e4m3fn), "w_scale_inv": scale}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_bits_are_those_of_torch(dtype: str, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fp8, "_chosen", [KERNELS[kernel]()])
    tensors = published(dtype)
    save_file(tensors, tmp_path / "model.safetensors")
    source, reader = make_sources(read_header(tmp_path / "model.safetensors"))["w"], Reader()
    assert source.scale is not None and source.scale.dtype == dtype
    into = bytearray(source.nbytes)
    reader.read(source, 0, memoryview(into))
    reader.close()
    scale = tensors["w_scale_inv"].float().repeat_interleave(128, 0).repeat_interleave(128, 1)[:ROWS, :COLUMNS]
    assert bytes(into) == bits((tensors["w"].float() * scale).to(torch.bfloat16))


@pytest.mark.parametrize(
    ("dtype", "pattern"),
    [("F8_E8M0", 255), ("BF16", 0x7F80), ("BF16", 0x8001), ("BF16", 0), ("F16", 0x7C00), ("F16", 0xFE00), ("F32", 0)],
)
def test_scales_that_are_none(dtype: str, pattern: int, tmp_path: Path) -> None:
    tensors = published(dtype)
    number = {1: torch.uint8, 2: torch.int16, 4: torch.int32}[TORCH[dtype].itemsize]
    signed = pattern - 2**16 if number == torch.int16 and pattern >= 2**15 else pattern
    tensors["w_scale_inv"].view(number)[2, 1] = signed
    save_file(tensors, tmp_path / "model.safetensors")
    source = make_sources(read_header(tmp_path / "model.safetensors"))["w"]
    with pytest.raises(WeightsError, match=r"w_scale_inv has .* at \[2, 1\]; scales are finite and above zero"):
        Reader().read(source, 0, memoryview(bytearray(source.nbytes)))
