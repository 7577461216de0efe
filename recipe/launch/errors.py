# SPDX-License-Identifier: Apache-2.0
"""Errors of the launcher that a person can act on; each is printed as one line."""

from __future__ import annotations


class LaunchError(Exception):
    """A run that cannot start or did not finish. `exit_code` is what the command returns."""

    exit_code = 1


class ConfigError(LaunchError):
    """A run file that cannot be used."""

    exit_code = 2


class AlreadyFinished(LaunchError):
    """Nothing is left to do of the run. It is no failure."""

    exit_code = 0


class ChannelError(LaunchError):
    """Another node's launcher is gone, is not ours, holds another token, or sends what cannot be read."""


class BrokenChannelError(ChannelError):
    """The connection ended, or nothing came over it: it may be tried again."""
