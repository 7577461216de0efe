# SPDX-License-Identifier: Apache-2.0
"""Errors of a launcher, beside those of the run file: how a run can end before its last step."""

from __future__ import annotations

from pathlib import Path

from recipe.runfile.errors import LaunchError

# How a run ended that a rule of the watch has stopped, in result.json and among the launchers of the nodes.
STOPPED = "stopped"


class AlreadyFinished(LaunchError):
    """The run has finished all its steps before; this is no failure."""

    exit_code = 0


class ChannelError(LaunchError):
    """Another node's launcher is gone, is not ours, holds another token, or sends what cannot be read."""


class BrokenChannelError(ChannelError):
    """The connection ended, or nothing came over it: it may be tried again."""


class TrainingStopped(LaunchError):
    """A rule of the watch over the training ended the run. `checkpoint` is the last good one, if there is any."""

    exit_code = 3

    def __init__(self, text: str, rule: str = "", checkpoint: Path | None = None) -> None:
        super().__init__(text)
        self.rule, self.checkpoint = rule, checkpoint
