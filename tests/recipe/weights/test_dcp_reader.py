# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of torch are read without torch; what is none, or more than one, is refused in one line."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import Metadata

from recipe.weights.dcp_metadata import FORMAT, Blob, Chunk
from recipe.weights.dcp_reader import read_metadata, read_storage
from recipe.weights.errors import WeightsError
from recipe.weights.source import Reader


class Everything:
    def __contains__(self, name: object) -> bool:
        return True


class Ran(BaseException):
    """A pickle has run something."""


def run() -> None:
    raise Ran


class Bomb:
    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return run, ()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint that torch's own writer makes: a matrix, a vector in another dtype, a number and an object."""
    state = {"a.w": torch.arange(12.0).reshape(3, 4), "b": torch.ones(5, dtype=torch.bfloat16), "step": 3, "o": [1]}
    dcp.save(state, checkpoint_id=str(tmp_path / "saved"), no_dist=True)
    (tmp_path / "saved" / "metadata.json").write_text(json.dumps(FORMAT))
    return tmp_path / "saved"


def test_reads_what_torch_saves(saved: Path) -> None:
    tensors = read_metadata(saved, Everything())
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()} == {
        "a.w": ("F32", (3, 4)), "b": ("BF16", (5,))
    }  # fmt: skip
    (chunk,) = tensors["a.w"].chunks
    assert (chunk.offsets, chunk.shape) == ((0, 0), (3, 4))
    storage = read_storage(saved, "a.w", chunk, "F32", Reader())
    raw = storage.entry.file.read_bytes()[storage.entry.begin :][: storage.entry.nbytes]
    assert raw == torch.arange(12.0).numpy().tobytes() and storage.strides == (4, 1)
    assert read_metadata(saved, {"b"}).keys() == {"b"}


def test_nothing_that_a_pickle_names_is_run(saved: Path) -> None:
    metadata = Metadata({}, storage_data={})
    metadata.mcore_data = Bomb()
    content = pickle.dumps(metadata)
    with pytest.raises(Ran):
        pickle.loads(content)
    (saved / ".metadata").write_bytes(content)
    with pytest.raises(WeightsError, match=r"\.metadata: .*test_dcp_reader\.run, which no checkpoint"):
        read_metadata(saved, Everything())


@pytest.mark.parametrize("name", ["builtins eval", "os system", "torch load", "operator attrgetter", "_codecs encode"])
def test_other_names_are_refused(name: str, saved: Path) -> None:
    module, function = name.split()
    (saved / ".metadata").write_bytes(f"\x80\x02c{module}\n{function}\nX\x01\x00\x00\x00a\x85R.".encode("latin-1"))
    with pytest.raises(WeightsError, match=f"{module}.{function}, which no checkpoint"):
        read_metadata(saved, Everything())


def test_nothing_that_an_archive_names_is_run(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save({"w": Bomb()}, stream)
    (tmp_path / "f").write_bytes(stream.getvalue())
    chunk = Chunk((0,), (1,), Blob("f", 0, len(stream.getvalue())))
    with pytest.raises(WeightsError, match=r"f: w at byte 0.*which no checkpoint"):
        read_storage(tmp_path, "w", chunk, "F32", Reader())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no directory", "no Megatron distributed checkpoint"),
        ("zarr", "format is 'zarr'"),
        ("no metadata", "is the checkpoint complete"),
        ("cut", "cannot be read as a checkpoint"),
        ("other object", "instead of Metadata"),
        ("outside", "outside the directory"),
        ("piece beyond", "lies outside of"),
    ],
)
def test_damaged_metadata_is_one_line(damage: str, message: str, saved: Path) -> None:
    file = saved / ".metadata"
    content = file.read_bytes()
    if damage == "no directory":
        saved = saved / "nowhere"
    elif damage == "zarr":
        (saved / "metadata.json").write_text(json.dumps({**FORMAT, "sharded_backend": "zarr"}))
    elif damage == "no metadata":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[:-20])
    elif damage == "other object":
        file.write_bytes(pickle.dumps({"a": 1}))
    elif damage == "outside":
        file.write_bytes(content.replace(b"__0_0.distcp", b"../../passwd"))
    else:
        metadata = pickle.loads(content)
        metadata.state_dict_metadata["b"].size = torch.Size([4])
        file.write_bytes(pickle.dumps(metadata))
    with pytest.raises(WeightsError, match=message) as caught:
        read_metadata(saved, Everything())
    assert "\n" not in str(caught.value)


def archive(tensor: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(tensor, stream)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (archive(torch.ones(2, 3)), r"\[2, 3\].*\[3, 2\]"),
        (archive(torch.ones(3, 2).bfloat16()), "holds BF16"),
        (archive([torch.ones(3, 2)]), "no torch.save archive of one tensor"),
        (archive(torch.ones(3, 2))[:-30], "no torch.save archive of one tensor"),
        (b"x" * 500, "no torch.save archive of one tensor"),
        (archive(torch.nn.Parameter(torch.ones(3, 2))), "_rebuild_parameter"),
    ],
)
def test_an_archive_of_something_else_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_storage(tmp_path, "w", Chunk((0, 0), (3, 2), Blob("f", 0, len(content))), "F32", Reader())
    assert "\n" not in str(caught.value) and "f: w at byte 0" in str(caught.value)


def test_a_storage_that_is_too_small(tmp_path: Path) -> None:
    """An archive whose pickle promises more elements than its record has."""
    small = archive(torch.ones(3, 2))
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive(torch.ones(30, 2)))) as large, zipfile.ZipFile(out, "w") as mixed:
        for info in large.infolist():
            with zipfile.ZipFile(io.BytesIO(small)) as small_archive:
                origin = small_archive if "data/" in info.filename else large
                mixed.writestr(info.filename, origin.read(info.filename))
    (tmp_path / "f").write_bytes(out.getvalue())
    with pytest.raises(WeightsError, match="element 59 of a storage of 24 bytes"):
        read_storage(tmp_path, "w", Chunk((0, 0), (30, 2), Blob("f", 0, len(out.getvalue()))), "F32", Reader())
