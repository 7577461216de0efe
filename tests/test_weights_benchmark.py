# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the weight tools runs on a small model; what it measures in seconds is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
RATIOS = (
    "cast_vs_cp_warm", "cast_vs_cp_cold", "cast_vs_reference", "fp8_to_mcore_vs_cp", "bf16_to_mcore_vs_cp",
    "legacy_vs_cp",
)  # fmt: skip
MEMORY = ("cast_rss_mib", "mcore_rss_mib", "legacy_rss_mib")


@pytest.mark.slow
def test_the_benchmark_prints_its_figures(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "benchmarks" / "weights.py"), "--json", "--rounds", "1", "--size", "0.1",
         "--directory", str(tmp_path)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert tuple(figures) == RATIOS + MEMORY
    assert all(value > 0 for value in figures.values())
    assert not list(tmp_path.iterdir())


def test_the_reference_is_the_published_algorithm() -> None:
    """The yardstick beside torch's own arithmetic, block by block."""
    import importlib.util

    import torch

    spec = importlib.util.spec_from_file_location("fp8_reference", REPOSITORY / "benchmarks" / "fp8_reference.py")
    assert spec is not None and spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    weight = torch.randn(200, 300).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 3)
    out = reference.cast(weight, scale)
    for row in (0, 1):
        for column in (0, 1, 2):
            box = slice(row * 128, row * 128 + 128), slice(column * 128, column * 128 + 128)
            assert torch.equal(out[box], (weight[box].float() * scale[row, column]).bfloat16())
