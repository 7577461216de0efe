# SPDX-License-Identifier: Apache-2.0
"""What one owner holds on the device, and the event line of a phase."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import verl  # noqa: F401  finds the device, before anything maps torch.cuda

from recipe.recorder import read_events
from verl_patches.device_memory import MemoryLedger, record_memory, resident_bytes


def test_the_ledger_counts_only_its_own_blocks() -> None:
    ledger = MemoryLedger()
    with ledger.counting():
        own = [torch.empty(4096, dtype=torch.uint8, device="npu")]
        with ledger.counting():
            own.append(torch.empty(8192, dtype=torch.uint8, device="npu"))
    foreign = torch.empty(1 << 20, dtype=torch.uint8, device="npu")
    assert ledger.held == 4096 + 8192
    with ledger.counting():
        own.pop()
    assert ledger.held == 4096
    assert foreign.numel() == 1 << 20


def test_a_failing_block_is_counted_as_far_as_it_came() -> None:
    ledger, own = MemoryLedger(), []
    with pytest.raises(KeyError), ledger.counting():
        own.append(torch.empty(4096, dtype=torch.uint8, device="npu"))
        raise KeyError
    assert ledger.held == 4096


def test_a_phase_is_recorded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECIPE_RUN_DIR", str(tmp_path))
    held = torch.empty(1 << 16, dtype=torch.uint8, device="npu")
    record_memory("generated", rollout_bytes=17)
    (event,) = read_events(tmp_path)
    assert (event["kind"], event["phase"], event["rollout_bytes"]) == ("memory", "generated", 17)
    assert event["allocated"] >= held.numel()
    assert event["peak"] >= event["allocated"]
    assert event["rss"] > 1 << 20


def test_nothing_is_recorded_outside_a_run(tmp_path: Path) -> None:
    record_memory("generated")
    assert not list(tmp_path.iterdir())


def test_resident_bytes_are_this_process() -> None:
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    expected = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
    assert abs(resident_bytes() - expected) < 64 << 20
