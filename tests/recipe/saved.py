# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as a run leaves them, with a few bytes in place of weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from recipe.checkpoints import UNFINISHED, Manifest, list_files, sum_files, write_manifest

CONTENT = {
    "actor/dist_ckpt/.metadata": b"index of the tensors",
    "actor/dist_ckpt/__0_0.distcp": b"weights of rank 0" * 20,
    "actor/dist_ckpt/__1_0.distcp": b"weights of rank 1" * 20,
    "actor/dist_ckpt/common.pt": b"what all ranks share",
    "actor/dist_ckpt/metadata.json": b'{"sharded_backend": "torch_dist"}',
    "data.pt": b"where the data loader is",
}


@pytest.fixture(scope="module")
def unsynced() -> Iterator[None]:
    """Nothing waits for the disk: a test's files need not survive a loss of power, and there are many of them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield


def save_unfinished(checkpoints: Path, step: int) -> Path:
    """What a save leaves that is cut short before its manifest."""
    checkpoint = checkpoints / f"global_step_{step}"
    (checkpoint / "actor" / "dist_ckpt").mkdir(parents=True)
    (checkpoint / UNFINISHED).touch()
    for name, content in CONTENT.items():
        (checkpoint / name).write_bytes(content)
    return checkpoint


def save(checkpoints: Path, step: int, run: Mapping[str, Any] | None = None) -> Path:
    """A whole checkpoint; `run` is what its manifest tells of the run."""
    checkpoint = save_unfinished(checkpoints, step)
    sums = sum_files(checkpoint, list_files(checkpoint), threads=1)
    write_manifest(checkpoint, Manifest(step, sums, run or {}))
    (checkpoints / "latest_checkpointed_iteration.txt").write_text(str(step))
    return checkpoint
