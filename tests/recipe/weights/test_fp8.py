# SPDX-License-Identifier: Apache-2.0
"""FP8 to bfloat16: both kernels against the published algorithm, rendered in plain torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.tiny.config import Fp8Model
from recipe.tiny.fp8 import make_fp8_model
from recipe.weights import cast, fp8
from recipe.weights.errors import WeightsError
from recipe.weights.job import run_job

REPO = Path(__file__).resolve().parents[3]
KERNELS = {"llvm": fp8.llvm_kernel(), "torch": fp8.torch_kernel()}
FINITE = np.array([byte for byte in range(256) if byte & 0x7F != 0x7F], np.uint8)


def reference(raw: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """DeepSeek's weight_dequant: float32 of the byte times its block's scale, then torch's rounding to bfloat16."""
    value = torch.from_numpy(raw).view(torch.float8_e4m3fn).float()
    scale = torch.from_numpy(scales).repeat_interleave(128, 0).repeat_interleave(128, 1)
    product = value * scale[: raw.shape[0], : raw.shape[1]]
    return product.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)


def scales_of(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    if kind == "denormal":
        bits = rng.integers(1, 2**23, shape, dtype=np.uint32)
    elif kind == "huge":
        bits = rng.integers(0x7E000000, 0x7F800000, shape, dtype=np.uint32)  # up to the largest float32
    elif kind == "any":
        bits = rng.integers(0, 0x7F800000, shape, dtype=np.uint32)
    else:
        return rng.uniform(1e-5, 1e-2, shape).astype(np.float32)
    return (bits | rng.integers(0, 2, shape, dtype=np.uint32) << np.uint32(31)).view(np.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", ["real", "denormal", "huge", "any"])
def test_every_byte_with_every_kind_of_scale_is_exact(kernel: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    blocks = 256
    raw = np.zeros((128, 128 * blocks), np.uint8)
    raw[:, :] = np.resize(FINITE, 128 * 128).reshape(128, 128)[:, np.arange(128 * blocks) % 128]
    scales = scales_of(kind, (1, blocks), rng)
    out = np.empty(raw.size, np.uint16)
    assert KERNELS[kernel](raw.ravel(), 0, raw.shape[1], scales, out)
    assert np.array_equal(out.reshape(raw.shape), reference(raw, scales))


@pytest.mark.parametrize("kernel", KERNELS)
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 300), columns=st.integers(1, 300), cut=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_run_of_elements_of_any_matrix(
    kernel: str, rows: int, columns: int, cut: tuple[float, float], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.choice(FINITE, (rows, columns))
    scales = scales_of("real", fp8.scale_shape((rows, columns)), rng)
    first, end = sorted(round(share * raw.size) for share in cut)
    out = np.full(end - first + 2, 7, np.uint16)
    assert KERNELS[kernel](raw.ravel()[first:end], first, columns, scales, out[1:-1])
    assert np.array_equal(out[1:-1], reference(raw, scales).ravel()[first:end])
    assert out[0] == out[-1] == 7, "writes nothing beside its output"


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("byte", [0x7F, 0xFF])
@pytest.mark.parametrize("at", [0, 127, 128, 1000, 16383])
def test_nan_is_seen_wherever_it_stands(kernel: str, byte: int, at: int) -> None:
    raw = np.full(128 * 128, 0x7E, np.uint8)
    scales, out = np.ones((1, 1), np.float32), np.empty(raw.size, np.uint16)
    assert KERNELS[kernel](raw, 0, 128, scales, out)
    raw[at] = byte
    assert not KERNELS[kernel](raw, 0, 128, scales, out)


FAULTS = [
    ImportError("No module named 'llvmlite'"),
    OSError("Could not find/load shared object file 'libllvmlite.so'"),
    RuntimeError("Unable to get target from triple:\nunknown processor"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_where_llvm_fails_torch_does_it_and_one_line_says_so(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> fp8.Kernel:
        raise fault

    monkeypatch.setattr(fp8, "_chosen", [])
    monkeypatch.setattr(fp8, "llvm_kernel", fails)
    raw, out = np.array([0x38, 0xB8], np.uint8), np.empty(2, np.uint16)  # 1.0 and -1.0
    with ThreadPoolExecutor(4) as workers:
        done = [workers.submit(fp8.dequantise, raw, 0, 2, np.full((1, 1), 2, np.float32), out) for _ in range(8)]
    assert all(future.result() for future in done)
    assert out.tolist() == [0x4000, 0xC000]
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("warning: no kernel from llvmlite (")
    assert " ".join(str(fault).split()) in error and "torch, a quarter as fast" in error


def test_without_llvm_and_torch_it_is_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_target(code: str) -> None:
        raise RuntimeError("no target")

    monkeypatch.setattr(fp8, "_chosen", [])
    monkeypatch.setattr("recipe.weights.fp8_kernel.compile_code", no_target)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(WeightsError, match="llvmlite or with torch"):
        fp8.kernel()


def test_a_library_that_does_not_load_is_survived_by_the_tool(tmp_path: Path) -> None:
    """A whole cast beside an llvmlite whose import fails as with a broken shared library."""
    broken = tmp_path / "path" / "llvmlite"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise OSError('libllvmlite.so: wrong ELF class')", encoding="utf-8")
    make_fp8_model(Fp8Model(), tmp_path / "hf", progress=lambda line: None)
    run_job(cast.plan_cast(tmp_path / "hf", tmp_path / "whole").job)
    done = subprocess.run(
        [sys.executable, str(REPO / "scripts" / "fp8_cast_bf16.py"), "--input-fp8-hf-path", str(tmp_path / "hf"),
         "--output-bf16-hf-path", str(tmp_path / "cast")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(broken.parent), os.environ["PYTHONPATH"]])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "wrong ELF class" in done.stderr, done.stderr
    expected, made = (json.loads((tmp_path / name / "weights_manifest.json").read_text()) for name in ("whole", "cast"))
    assert made["files"] == expected["files"]


@pytest.mark.parametrize(
    "changes",
    [
        {"scales": np.ones((1, 1), np.float32)},
        {"scales": np.ones((2, 2), np.float64)},
        {"first": 1},
        {"first": -1},
        {"out": np.empty(10, np.uint16)},
        {"out": np.empty(400, np.uint16)[::2]},
        {"raw": np.zeros(200, np.int16)},
    ],
    ids=["few scales", "scales of float64", "first 1", "first -1", "a short out", "an out with gaps", "raw of int16"],
)
def test_arrays_that_do_not_fit_are_refused(changes: dict[str, object]) -> None:
    """Compiled code looks at no bounds."""
    good = {
        "raw": np.zeros(200, np.uint8), "first": 0, "columns": 200, "scales": np.ones((1, 2), np.float32),
        "out": np.empty(200, np.uint16),
    }  # fmt: skip
    assert KERNELS["llvm"](*good.values())
    if changes == {"first": 1}:
        changes = {"first": 127 * 200 + 1}  # ends in a row of the next blocks
    with pytest.raises(ValueError):
        KERNELS["llvm"](*(good | changes).values())


def test_a_processor_without_half_precision_has_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    from recipe.weights import fp8_kernel

    monkeypatch.setattr(fp8_kernel.llvm, "get_host_cpu_features", lambda: {"f16c": False})
    with pytest.raises(ImportError, match="half precision"):
        fp8.llvm_kernel()
