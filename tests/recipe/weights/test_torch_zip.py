# SPDX-License-Identifier: Apache-2.0
"""The hand-made archive is what torch.load and any zip reader expect."""

from __future__ import annotations

import io
import mmap
import os
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.weights import torch_pickle
from recipe.weights.torch_zip import Archive, tensor_archive

DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def payload_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def archive_of(tensor: torch.Tensor, dtype: str) -> bytes:
    payload = payload_of(tensor)
    archive = tensor_archive(dtype, tensor.shape, len(payload))
    raw = archive.head + payload + archive.tail([zlib.crc32(payload)])
    assert len(raw) == archive.nbytes
    return raw


def model_archive(tensors: dict[str, torch.Tensor]) -> tuple[Archive, list[bytes]]:
    names = {kind: name for name, kind in DTYPES.items()}
    value = torch_pickle.mapping(
        {
            "model": torch_pickle.mapping(
                {
                    name: torch_pickle.tensor(names[tensor.dtype], tensor.shape, key)
                    for key, (name, tensor) in enumerate(tensors.items())
                }
            ),
            "version": torch_pickle.real(3.0),
            "iteration": torch_pickle.integer(1),
        }
    )
    payloads = [payload_of(tensor) for tensor in tensors.values()]
    return Archive(torch_pickle.document(value), [len(payload) for payload in payloads]), payloads


def joined(archive: Archive, payloads: list[bytes]) -> bytes:
    crcs = [zlib.crc32(payload) for payload in payloads]
    out = [archive.head]
    for key, payload in enumerate(payloads):
        out += [payload, archive.between(key, crcs[key]) if key + 1 < len(payloads) else archive.tail(crcs)]
    return b"".join(out)


@settings(max_examples=40, deadline=None)
@given(shape=st.lists(st.integers(1, 7), min_size=1, max_size=4), dtype=st.sampled_from(sorted(DTYPES)))
def test_torch_loads_it(shape: list[int], dtype: str) -> None:
    tensor = torch.randn(shape).to(DTYPES[dtype])
    loaded = torch.load(io.BytesIO(archive_of(tensor, dtype)), weights_only=True)
    assert loaded.dtype == tensor.dtype and loaded.is_contiguous()
    assert torch.equal(loaded, tensor)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.sampled_from(sorted(DTYPES))), min_size=1, max_size=9))
def test_torch_loads_a_dictionary_of_many_tensors(tmp_path_factory: pytest.TempPathFactory, sizes: list) -> None:
    tensors = {f"layer.{i}": torch.randn(n, 3).to(DTYPES[kind]) for i, (n, kind) in enumerate(sizes)}
    archive, payloads = model_archive(tensors)
    raw = joined(archive, payloads)
    assert len(raw) == archive.nbytes
    file = tmp_path_factory.mktemp("zip") / "model.pt"
    file.write_bytes(raw)
    for mapped in (False, True):
        loaded = torch.load(file, weights_only=True, mmap=mapped)
        assert loaded["version"] == 3.0 and type(loaded["iteration"]) is int and loaded["iteration"] == 1
        assert list(loaded["model"]) == list(tensors)
        for name, tensor in tensors.items():
            assert loaded["model"][name].dtype == tensor.dtype and torch.equal(loaded["model"][name], tensor)
    with zipfile.ZipFile(file) as content:
        assert content.testzip() is None


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


@pytest.mark.parametrize("wide", ["a tensor", "the offsets"])
def test_beyond_four_gigabytes(wide: str, tmp_path: Path) -> None:
    """A sparse file: a storage of 4.3 GB (or three of 2.1 GB), the last bytes of each written and read back."""
    sizes = [2**32 + 2**28, 64] if wide == "a tensor" else [2**31, 2**31, 2**31]
    value = {f"t{key}": torch_pickle.tensor("BF16", (size // 64, 32), key) for key, size in enumerate(sizes)}
    archive = Archive(torch_pickle.document(torch_pickle.mapping(value)), sizes)
    file = tmp_path / "model.pt"
    with file.open("wb") as stream:
        stream.write(archive.head)
        for key, size in enumerate(sizes):
            stream.seek(size - 4, os.SEEK_CUR)
            stream.write(torch.tensor([key + 1.0, -1.0], dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes())
            # Nobody checks the sums of gigabytes of zeros here; torch does not either.
            stream.write(archive.between(key, 0) if key + 1 < len(sizes) else archive.tail([0] * len(sizes)))
    assert file.stat().st_size == archive.nbytes > 2**32
    loaded = torch.load(file, weights_only=True, mmap=True)
    for key, size in enumerate(sizes):
        assert loaded[f"t{key}"].shape == (size // 64, 32)
        assert loaded[f"t{key}"][-1, -2:].tolist() == [key + 1.0, -1.0]
    with zipfile.ZipFile(file) as content:
        assert [content.getinfo(f"archive/data/{key}").file_size for key in range(len(sizes))] == sizes
        last = f"archive/data/{len(sizes) - 1}"
        start = content.getinfo(last).header_offset
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as raw:
        assert raw[start : start + 4] == b"PK\x03\x04"


def test_many_records_need_no_other_limit() -> None:
    """More records than a 16-bit count holds, as a rank with every expert on its own has at the extreme."""
    count = 70_000
    value = torch_pickle.mapping({str(key): torch_pickle.tensor("BF16", (1,), key) for key in range(count)})
    archive = Archive(torch_pickle.document(value), [2] * count)
    raw = joined(archive, [b"\x80\x3f"] * count)
    with zipfile.ZipFile(io.BytesIO(raw)) as content:
        assert len(content.infolist()) == count + 3 and content.read("archive/data/69999") == b"\x80\x3f"
