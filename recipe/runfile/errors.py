# SPDX-License-Identifier: Apache-2.0
"""Errors that a person can act on; each is printed as one line."""

from __future__ import annotations

import signal


class LaunchError(Exception):
    """A run that cannot start or did not finish. `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(LaunchError):
    """A run file that cannot be used."""

    exit_code = 2


class Interrupted(LaunchError):
    """A command was asked to stop; the exit code is the shell's for that signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number
