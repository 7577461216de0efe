# SPDX-License-Identifier: Apache-2.0
"""How a run ended: its result file, its report, and the last lines of its launcher."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from recipe.clock import Clock, minutes
from recipe.files import release, reserve, write_atomically
from recipe.launch.errors import STOPPED, TrainingStopped
from recipe.recorder import append_line, read_object
from recipe.runfile.errors import LaunchError
from recipe.runfile.paths import RESULT
from recipe.runfile.schema import Run
from recipe.stopping import StopSignals

_RESULT_BYTES = 2**14


class Outcome:
    """Records in the run's directory how a launch ended."""

    def __init__(self, run: Run, run_dir: Path, clock: Clock) -> None:
        self._run, self._run_dir, self._clock = run, run_dir, clock

    def reserve(self) -> None:
        """Reserve space for the result file, which a disk that is full by the end would refuse."""
        reserve(self._run_dir / RESULT, _RESULT_BYTES)

    def close(self, error: LaunchError | None, step: int) -> None:
        """Write the result and make the report.

        Args:
            error: why the run did not finish; None: it did.
            step: that of the checkpoint from which this attempt went on; 0: it began.

        Raises:
            LaunchError: a run that finished has no report.
        """
        with StopSignals():
            self._write(error, step)
        if error is not None:
            self._clock.note(f"error: {error}")
        self.report(failed=error is not None)

    def complete(self) -> None:
        """Write the result and the report of a run whose last attempt was ended before it had written them."""
        result = self._run_dir / RESULT
        text = result.read_text(encoding="utf-8", errors="replace") if result.is_file() else ""
        if (read_object(text) or {}).get("status") != "finished":
            self._write(None, 0)
            self.report(failed=False)

    def _write(self, error: LaunchError | None, step: int) -> None:
        """Write the result; a failure is passed over, as the exit code and the last line tell the outcome too."""
        result = self._run_dir / RESULT
        content = {
            **_status(error),
            "wall_s": round(time.monotonic() - self._clock.start, 1),
            "seed": self._run.seed,
            "steps_wanted": self._run.steps,
            "resumed_from_step": step or None,
        }
        try:
            write_atomically(result, json.dumps(content, indent=2) + "\n")
        except OSError as problem:
            release(result)
            self._clock.say(f"warning: {result} could not be written: {problem.strerror}")

    def report(self, failed: bool) -> None:
        """Make the report; for a run that failed, an error in it does not hide that failure."""
        from recipe.report.make import make_report

        run_dir = self._run_dir
        try:
            summary = make_report(run_dir)
        except OSError as error:  # a full disk: the run has ended all the same, and the report can be made later
            command = f"python -m recipe report {run_dir}"
            reason = error.strerror or error
            self._clock.say(f"warning: no report could be made ({reason}); later `{command}` makes it")
        except Exception as error:
            if not failed:
                reason = f"{type(error).__name__}: {error}"
                raise LaunchError(f"the run finished, but its report failed: {reason}") from error
            append_line(run_dir / "logs" / "report-error.jsonl", {"error": str(error)})
        else:
            if not failed:
                self._say_summary(summary)

    def _say_summary(self, summary: dict[str, Any]) -> None:
        scores = (summary["val_score_first"], summary["val_score_last"])
        text = " -> ".join("none" if score is None else f"{score:.3f}" for score in scores)
        wall = minutes(summary["wall_s"])
        self._clock.say(f"finished {summary['steps']} steps in {wall}; validation score {text}")
        self._clock.say(f"report: {self._run_dir / 'report.html'}")


def _status(error: LaunchError | None) -> dict[str, str | None]:
    if isinstance(error, TrainingStopped):
        checkpoint = None if error.checkpoint is None else str(error.checkpoint)
        return {"status": STOPPED, "error": str(error), "rule": error.rule, "last_good_checkpoint": checkpoint}
    return {"status": "finished" if error is None else "failed", "error": None if error is None else str(error)}
