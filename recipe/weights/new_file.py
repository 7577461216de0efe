# SPDX-License-Identifier: Apache-2.0
"""Small files that are written beside others, and never over one that says something else."""

from __future__ import annotations

from pathlib import Path

from recipe.files import write_atomically
from recipe.weights.errors import WeightsError


def is_written(file: Path, content: bytes) -> bool:
    """Whether the file is there, with this content.  WeightsError: another is there, or it cannot be read."""
    try:
        if not file.exists():
            return False
        if file.read_bytes() != content:
            raise WeightsError(f"{file} is another file, and stays; name another directory, or move it away")
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}); name another directory") from None
    return True


def write_new(file: Path, content: bytes) -> str:
    """Write the file unless it is there; what was done.  WeightsError: another is there, or it cannot be written."""
    if is_written(file, content):
        return f"{file}: there already, the same"
    return write(file, content)


def write(file: Path, content: bytes) -> str:
    """Write the file, over another too; what was done.  WeightsError: it cannot be written."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be written ({error.strerror}); name another directory") from None
    return f"{file}: written"
