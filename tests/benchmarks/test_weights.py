# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the weight tools runs on a small model; what it measures in seconds is not judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import fp8_reference as reference

REPOSITORY = Path(__file__).resolve().parents[2]
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
    weight = torch.randn(200, 300).to(torch.float8_e4m3fn)
    scale = torch.rand(2, 3)
    out = reference.cast(weight, scale)
    for row in (0, 1):
        for column in (0, 1, 2):
            box = slice(row * 128, row * 128 + 128), slice(column * 128, column * 128 + 128)
            assert torch.equal(out[box], (weight[box].float() * scale[row, column]).bfloat16())
