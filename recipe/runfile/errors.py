# SPDX-License-Identifier: Apache-2.0
"""Errors that a person can act on; each is printed as one line."""

from __future__ import annotations


class LaunchError(Exception):
    """A run that cannot start or did not finish. `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(LaunchError):
    """A run file that cannot be used."""

    exit_code = 2
