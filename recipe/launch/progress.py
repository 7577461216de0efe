# SPDX-License-Identifier: Apache-2.0
"""What a person reads while a run goes on: a line for each phase of the set-up, then one for each step."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from recipe.clock import Clock, minutes
from recipe.recorder import read_object
from recipe.report.metrics import RESPONSE_LENGTH, REWARD, STEP_SECONDS, Step, parse

# Lines of the driver's log in the order in which they come, and the phase of the set-up that each means.
PHASES = (
    ("ray init kwargs", "starting Ray"),
    ("Started a local Ray instance", "starting the trainer process"),
    ("TaskRunner hostname", "reading the data"),
    ("Total training steps", "starting the workers"),
    ("Model config after override", "building the reference policy"),
    ("load ref weight start", "building the actor"),
    ("actor_module:", "loading the actor's weights, then starting the rollout engine"),
    ("kwargs: {'n'", "first validation"),
    ("validation generation end", "scoring the first validation"),
)


class Follower:
    """The new whole lines of a growing text file, which need not exist yet."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        """`from_end`: leave out what the file holds already."""
        self._path = path
        self._file: TextIO | None = None
        self._rest = ""
        if from_end and path.is_file():
            self._file = open(path, encoding="utf-8", errors="replace")  # noqa: SIM115
            self._file.seek(0, 2)

    def lines(self) -> list[str]:
        """Lines completed since the last call."""
        if self._file is None:
            try:
                self._file = open(self._path, encoding="utf-8", errors="replace")  # noqa: SIM115
            except OSError:
                return []
        try:
            *complete, self._rest = (self._rest + self._file.read()).split("\n")
        except OSError:  # a file server that does not answer for now
            return []
        return complete

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Progress:
    """Follows the metrics and the driver's log of a run and says what is new since this was made.

    `last_sign` is the time (monotonic) of the last sign of progress, `step` the last finished step.
    """

    def __init__(
        self, metrics: Path, log: Path, steps: int, clock: Clock, on_step: Callable[[Step], None] | None = None
    ) -> None:
        """`on_step` takes each step after its line has been said."""
        self._on_step = on_step
        self._metrics, self._log = Follower(metrics, from_end=True), Follower(log)
        self._steps, self._clock = steps, clock
        self._phase = -1
        self._durations: list[float] = []
        self.last_sign = time.monotonic()
        self.step: int | None = None

    @property
    def started(self) -> bool:
        """Whether the first line of metrics is there: set-up is over."""
        return self.step is not None

    def update(self) -> None:
        """Read what is new and say it."""
        for line in self._log.lines():
            self._notice(line)
        for line in self._metrics.lines():
            value = read_object(line)
            step = None if value is None else parse(value)
            if step is not None:
                self._report(step)
                if self._on_step is not None:
                    self._on_step(step)

    def close(self) -> None:
        self._metrics.close()
        self._log.close()

    def _notice(self, line: str) -> None:
        if self.started:
            return
        for number, (mark, text) in enumerate(PHASES):
            if number > self._phase and mark in line:
                self._phase = number
                self._clock.say(f"set-up: {text}")
                return

    def _report(self, step: Step) -> None:
        self.step, self.last_sign = step.number, time.monotonic()
        parts = [f"step {step.number:>{len(str(self._steps))}} of {self._steps}"]
        if step.trained:
            seconds = step.get(STEP_SECONDS) or 0.0
            self._durations.append(seconds)
            for label, value in (("reward", step.get(REWARD)), ("response length", step.get(RESPONSE_LENGTH))):
                if value is not None:
                    parts.append(f"{label} {value:.3f}" if label == "reward" else f"{label} {value:.1f}")
            parts.append(f"{seconds:.1f} s")
            recent = self._durations[-5:]
            remaining_s = (self._steps - step.number) * sum(recent) / len(recent)
            if remaining_s > 0:
                parts.append(f"{minutes(remaining_s)} left")
        if step.validation_score is not None:
            parts.append(f"validation score {step.validation_score:.3f}")
        self._clock.say("  ".join(parts))
