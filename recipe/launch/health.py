# SPDX-License-Identifier: Apache-2.0
"""Applies the watch over the training to a run that goes on: prints and marks what the rules find, and asks for the
end."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from recipe.checkpoints import good_text, last_whole
from recipe.launch.errors import TrainingStopped
from recipe.models.config_file import read_config
from recipe.models.family import ModelError
from recipe.report.marks import STOP, Mark, add_mark
from recipe.report.metrics import Step, read_steps
from recipe.runfile.paths import RunPaths
from recipe.runfile.schema import RunConfig
from recipe.watch.history import context_of
from recipe.watch.watch import Breach, Watcher


class Health:
    """Follows the steps of one attempt of a run; those of earlier attempts in its metrics are taken in silently.

    `stopped` is what ends the run, once a rule does.
    """

    def __init__(self, config: RunConfig, vocabulary: int | None, paths: RunPaths, say: Callable[[str], None]) -> None:
        self._paths, self._say = paths, say
        self._watch = Watcher(config.watch, context_of(dataclasses.asdict(config), vocabulary))
        self.stopped: TrainingStopped | None = None
        for step in read_steps(paths.metrics):
            self._watch.feed(step)

    @property
    def good_step(self) -> int:
        """The last step whose checkpoint no stopping rule speaks against (0: none); its checkpoint must be kept."""
        return self._watch.good

    def follow(self, step: Step) -> None:
        """Take in a step that has just ended."""
        for breach in self._watch.feed(step):
            self._mark(breach)
            if breach.kind != STOP:
                self._say(f"warning: {breach.rule}: {breach.text}")
            elif self.stopped is None:
                self.stopped = self._stop(breach)

    def _mark(self, breach: Breach) -> None:
        try:
            add_mark(self._paths.run_dir, Mark(breach.step, breach.kind, breach.rule, breach.text))
        except OSError as error:  # a full disk must not end a run that the rule does not end
            self._say(f"warning: the mark of step {breach.step} cannot be written ({error.strerror})")

    def _stop(self, breach: Breach) -> TrainingStopped:
        checkpoint = last_whole(self._paths.checkpoints, breach.good)
        return TrainingStopped(
            f"after step {breach.step}: the watch has stopped the run: {breach.rule}: {breach.text}; "
            f"{good_text(checkpoint)}; docs/WATCH.md says what to do",
            breach.rule,
            checkpoint,
        )


def vocabulary_of(model: Path) -> int | None:
    """The tokens of a model by its config.json; None where that cannot be told."""
    try:
        size = (read_config(model) or {}).get("vocab_size")
    except ModelError:
        return None
    return size if type(size) is int and size > 1 else None
