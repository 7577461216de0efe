# SPDX-License-Identifier: Apache-2.0
"""The states of a process's random number generators as JSON, so that a resumed run draws what the first would have.

JSON, because a checkpoint may come from elsewhere: nothing in it is executed when it is read.
"""

# NPU-ADAPTATION: checkpoints hold the generators of every process, as JSON

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipe.files import write_atomically

# In a checkpoint's directory (`global_step_N/`): one file of each rank and one of the trainer's process.
DIRECTORY = "random"


# What setting a state may raise when it is not what was saved.
UNUSABLE = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)


class RandomStatesError(RuntimeError):
    """States that were saved cannot be read or set."""


def derived_seed(seed: int, *purpose: str | int, bits: int = 63) -> int:
    """A seed below 2**`bits` for one purpose, unrelated to those that other seeds and other purposes give."""
    text = json.dumps([seed, *purpose]).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") % 2**bits


def host_states() -> dict[str, Any]:
    """The states of Python's, NumPy's (the global ones) and torch's host generator, as JSON values."""
    version, words, gauss = random.getstate()
    kind, numpy_words, position, has_gauss, cached = np.random.get_state()
    return {
        "python": [version, list(words), gauss],
        "numpy": [kind, [int(word) for word in numpy_words], int(position), int(has_gauss), float(cached)],
        "torch": packed(torch.get_rng_state()),
    }


def set_host_states(states: Mapping[str, Any]) -> None:
    """Set the generators to what `host_states` gave. Raises one of UNUSABLE when these are no such states."""
    version, words, gauss = states["python"]
    kind, numpy_words, position, has_gauss, cached = states["numpy"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state((kind, np.array(numpy_words, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(unpacked(states["torch"]))


def packed(state: torch.Tensor) -> str:
    """A generator's state (uint8, one dimension) as hexadecimal digits."""
    return state.cpu().numpy().tobytes().hex()


def unpacked(digits: str) -> torch.Tensor:
    """The uint8 tensor on the host that `packed` was given. Raises one of UNUSABLE for other text."""
    return torch.frombuffer(bytearray.fromhex(digits), dtype=torch.uint8)


def write_states(path: Path, states: Mapping[str, Any]) -> None:
    """Write `states` (JSON values) under a temporary name, synced, and rename: `path` is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(states))


def read_states(path: Path) -> dict[str, Any]:
    """What `write_states` wrote.

    Raises:
        RandomStatesError: the file is missing or no JSON object.
    """
    try:
        states = json.loads(path.read_text(encoding="ascii"))
    except (OSError, ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(states, dict):
        raise damaged(path, f"it holds {type(states).__name__}, not an object")
    return states


def damaged(path: Path, reason: Exception | str) -> RandomStatesError:
    """The error that a file of random states cannot be used, in one line."""
    reason = reason if isinstance(reason, str) else _line(reason)
    return RandomStatesError(
        f"{path}, the random states of this checkpoint, cannot be used ({reason}): go on from an earlier checkpoint"
    )


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
