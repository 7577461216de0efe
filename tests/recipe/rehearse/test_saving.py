# SPDX-License-Identifier: Apache-2.0
"""Files that are measured and not written; what dies hold is proven in test_against_full_run.py."""

from __future__ import annotations

import io

import pytest
import torch

from recipe.rehearse.saving import _length_only, _Measure


class Forwarding(io.IOBase):
    """As torch hands its writers on: it knows `write` and nothing else."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self.raw = raw

    def write(self, data: bytes) -> int | None:
        return self.raw.write(data)


@pytest.mark.parametrize("forwarded", [False, True])
def test_a_measured_file_is_as_long_as_the_written_one(forwarded: bool) -> None:
    tensors = [
        torch.ones(shape, dtype=dtype) for shape, dtype in (((3, 5), torch.bfloat16), ((700, 300), torch.float32))
    ]
    written, measured = io.BytesIO(), _Measure()
    for file in (written, measured):
        file.write(b"of the bytes before")
    save = _length_only(torch.save)
    for tensor in tensors:
        torch.save(tensor, written)
        save(tensor, Forwarding(measured) if forwarded else measured)
        assert measured.tell() == len(written.getvalue())


def test_nothing_of_a_tensor_is_kept() -> None:
    passed: list[int] = []

    class Watched(_Measure):
        def write(self, data: object) -> int:
            passed.append(memoryview(data).nbytes)  # type: ignore[arg-type]
            return super().write(data)

    with torch.serialization.skip_data():
        torch.save(torch.ones(1000, 1000), Watched())
    assert sum(passed) < 4096
