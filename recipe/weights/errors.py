# SPDX-License-Identifier: Apache-2.0
"""The errors of the weight tools: one line that names the file and the tensor."""

from __future__ import annotations

from pathlib import Path


class WeightsError(Exception):
    """Input or options that cannot be used; the message says what was found, what was expected and what to do."""


class DamagedInputError(WeightsError):
    """A file of the input that is not what it should be: whatever was made of `file` is worth nothing."""

    def __init__(self, message: str, file: Path) -> None:
        super().__init__(message)
        self.file = file


class InterruptedJobError(WeightsError):
    """The machine failed, not the input (a full disk, a read error): what is done is kept, and a rerun resumes."""
