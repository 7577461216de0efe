# SPDX-License-Identifier: Apache-2.0
"""Sources: any run of bytes of any tensor reads as the safetensors library and plain torch have it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from recipe.weights import source as module
from recipe.weights.errors import InterruptedJobError, WeightsError
from recipe.weights.hf_checkpoint import read_header
from recipe.weights.source import Reader, Source, make_sources

ROWS, COLUMNS = 300, 200


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    raw = torch.randint(0, 0x7F, (ROWS, COLUMNS), dtype=torch.uint8, generator=generator)
    return {
        "fp8": raw.view(torch.float8_e4m3fn),
        "fp8_scale_inv": torch.rand((3, 2), generator=generator),
        "bf16": torch.randn((7, 30), generator=generator).bfloat16(),
        "f32": torch.randn((50,), generator=generator),
    }


@pytest.fixture(scope="module")
def file(tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "model.safetensors"
    save_file(tensors, path)
    return path


@pytest.fixture(scope="module")
def expected(tensors: dict[str, torch.Tensor]) -> dict[str, bytes]:
    scale = tensors["fp8_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)[:ROWS, :COLUMNS]
    cast = (tensors["fp8"].float() * scale).to(torch.bfloat16)
    out = {"fp8": cast, "bf16": tensors["bf16"], "f32": tensors["f32"]}
    return {name: tensor.view(torch.uint8).numpy().tobytes() for name, tensor in out.items()}


def test_what_comes_out(file: Path, expected: dict[str, bytes]) -> None:
    sources = make_sources(read_header(file))
    assert {name: (s.dtype, s.shape, s.nbytes) for name, s in sources.items()} == {
        "fp8": ("BF16", (ROWS, COLUMNS), len(expected["fp8"])),
        "bf16": ("BF16", (7, 30), len(expected["bf16"])),
        "f32": ("F32", (50,), len(expected["f32"])),
    }
    assert [sources[name].row_bytes for name in ("fp8", "bf16", "f32")] == [2 * COLUMNS, 60, 4]
    assert sources["fp8"].where == "model.safetensors: fp8"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["fp8", "bf16", "f32"]), panel=st.sampled_from([64, 1000, 2**18]))
def test_any_run_of_bytes(
    data: st.DataObject, name: str, panel: int, file: Path, expected: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PANEL", panel)
    source, reader = make_sources(read_header(file))[name], Reader()
    unit = 2 if name == "fp8" else 1
    begin = data.draw(st.integers(0, source.nbytes // unit)) * unit
    end = data.draw(st.integers(begin // unit, source.nbytes // unit)) * unit
    into = bytearray(end - begin)
    reader.read(source, begin, memoryview(into))
    assert bytes(into) == expected[name][begin:end]
    reader.close()


@pytest.mark.parametrize("name", ["fp8", "bf16", "f32"])
def test_rows(name: str, file: Path, expected: dict[str, bytes]) -> None:
    source, reader = make_sources(read_header(file))[name], Reader()
    into = bytearray(5 * source.row_bytes)
    reader.read_rows(source, 2, 3, memoryview(into))
    size = source.row_bytes
    assert bytes(into) == expected[name][2 * size : 5 * size] + bytes(2 * size)
    with pytest.raises(ValueError, match=r"bytes \d+ to \d+ of \d+"):
        reader.read_rows(source, source.shape[0], 1, memoryview(into))
    reader.close()


def test_half_a_number_is_refused(file: Path) -> None:
    source, reader = make_sources(read_header(file))["fp8"], Reader()
    with pytest.raises(ValueError, match="cut a bfloat16 number"):
        reader.read(source, 1, memoryview(bytearray(2)))
    reader.close()


def test_a_reader_keeps_few_files_open(tmp_path: Path) -> None:
    entries = []
    for number in range(40):
        path = tmp_path / f"{number}.safetensors"
        save_file({"w": torch.full((4,), number, dtype=torch.uint8)}, path)
        entries.append(read_header(path)["w"])
    reader, into = Reader(), bytearray(4)
    before = len(os.listdir("/proc/self/fd"))
    for number in [*range(40), *range(40)]:
        reader.read(Source(entries[number]), 0, memoryview(into))
        assert bytes(into) == bytes([number] * 4)
    assert len(os.listdir("/proc/self/fd")) - before <= 20
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_that_shrinks_while_it_is_read(file: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(file.read_bytes())
    entry = max(read_header(copy).values(), key=lambda e: e.begin)
    os.truncate(copy, entry.begin + 3)
    with pytest.raises(WeightsError, match=rf"{entry.name} ended \d+ bytes too early"):
        Reader().read_raw(entry, 0, memoryview(bytearray(entry.nbytes)))


def test_a_disk_that_fails_is_no_fault_of_the_input(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", fail)
    source = make_sources(read_header(file))["f32"]
    with pytest.raises(InterruptedJobError, match=r"f32 cannot be read \(Input/output error\)"):
        Reader().read(source, 0, memoryview(bytearray(8)))
