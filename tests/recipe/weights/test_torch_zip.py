# SPDX-License-Identifier: Apache-2.0
"""The hand-made archive is what torch.load and any zip reader expect."""

from __future__ import annotations

import io
import zipfile
import zlib

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.weights.torch_zip import MAX_PAYLOAD, TensorArchive

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def archive_of(tensor: torch.Tensor, dtype: str) -> bytes:
    payload = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    archive = TensorArchive(dtype, tensor.shape, len(payload))
    crc = zlib.crc32(payload)
    raw = bytearray(archive.head + payload + archive.tail(crc))
    raw[archive.crc_at : archive.crc_at + 4] = crc.to_bytes(4, "little")
    assert len(raw) == archive.nbytes
    return bytes(raw)


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=4), dtype=st.sampled_from(sorted(DTYPES)))
def test_torch_loads_it(shape: list[int], dtype: str) -> None:
    tensor = torch.randn(shape).to(DTYPES[dtype])
    loaded = torch.load(io.BytesIO(archive_of(tensor, dtype)), weights_only=True)
    assert loaded.dtype == tensor.dtype and loaded.is_contiguous()
    assert torch.equal(loaded, tensor)


def test_it_is_a_sound_zip_with_the_data_aligned() -> None:
    raw = archive_of(torch.arange(100.0), "F32")
    with zipfile.ZipFile(io.BytesIO(raw)) as content:
        assert content.testzip() is None
        assert content.namelist() == [f"archive/{name}" for name in ("data.pkl", "byteorder", "data/0", "version")]
    assert raw.index(torch.arange(100.0).numpy().tobytes()) % 64 == 0


def test_a_flipped_byte_is_noticed_by_a_zip_reader() -> None:
    raw = bytearray(archive_of(torch.ones(64), "F32"))
    raw[raw.index(b"\x00\x00\x80\x3f" * 8)] ^= 1
    with zipfile.ZipFile(io.BytesIO(bytes(raw))) as content:
        assert content.testzip() == "archive/data/0"


def test_refuses_what_a_32_bit_zip_cannot_hold() -> None:
    with pytest.raises(ValueError, match="cut it"):
        TensorArchive("F32", (2**31,), MAX_PAYLOAD + 1)
