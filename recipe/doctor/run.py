# SPDX-License-Identifier: Apache-2.0
"""What the watch over the training has to say of a run, finished or still running. Reads only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.checkpoints import good_text, last_whole
from recipe.report.marks import STOP
from recipe.report.metrics import read_steps
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError
from recipe.runfile.paths import COMMAND
from recipe.runfile.schema import Watch
from recipe.runfile.typed_toml import build
from recipe.watch.history import VOCABULARY, Context, context_of
from recipe.watch.watch import Breach, Watcher


@dataclass(frozen=True)
class RunDiagnosis:
    """The rules that hold for a run, what they say of its steps, and the last good checkpoint for each stop."""

    run_dir: Path
    steps: int
    rules: tuple[str, ...]
    findings: tuple[Breach, ...]
    checkpoints: Mapping[int, Path | None]

    @property
    def exit_code(self) -> int:
        """2 if a rule stops the run; warnings are no errors."""
        return 2 if any(finding.kind == STOP for finding in self.findings) else 0

    def lines(self) -> list[str]:
        lines = [self._line(finding) for finding in self.findings]
        stops = sum(finding.kind == STOP for finding in self.findings)
        counts = f"{stops} stops, {len(self.findings) - stops} warnings"
        return [*lines, f"{self.run_dir}: {self.steps} steps, {len(self.rules)} rules: {counts}"]

    def _line(self, finding: Breach) -> str:
        checkpoint = f"; {good_text(self.checkpoints[finding.good])}" if finding.kind == STOP else ""
        return f"{finding.kind} at step {finding.step}: {finding.rule}: {finding.text}{checkpoint}"

    def as_json(self) -> dict[str, Any]:
        findings = []
        for finding in self.findings:
            checkpoint = self.checkpoints[finding.good]
            last = None if checkpoint is None else str(checkpoint)
            findings.append(dataclasses.asdict(finding) | {"last_good_checkpoint": last})
        return {"run_dir": str(self.run_dir), "steps": self.steps, "rules": list(self.rules), "findings": findings}


def diagnose_run(run_dir: Path) -> RunDiagnosis:
    """Feed the rules with all steps that a run's directory has, under the settings it was started with.

    Raises:
        ConfigError: it is not the directory of a run, or its settings cannot be read.
    """
    settings, context, checkpoint_dir = _settings(run_dir)
    watch = Watcher(settings, context)
    steps = read_steps(run_dir / "metrics.jsonl")
    findings: dict[tuple[str, str, int], Breach] = {}
    for step in steps:
        for finding in watch.feed(step):
            # A streak is told of once, though each of its steps would stop the run.
            findings.setdefault((finding.rule, finding.kind, finding.since), finding)
    directory = Path(checkpoint_dir).expanduser() if checkpoint_dir else run_dir / "checkpoints"
    checkpoints = {finding.good: last_whole(directory, finding.good) for finding in findings.values()}
    trained = sum(step.trained for step in steps)
    return RunDiagnosis(run_dir, trained, watch.rules, tuple(findings.values()), checkpoints)


def _settings(run_dir: Path) -> tuple[Watch, Context, str | None]:
    """The run's `[watch]`, what its rules must know of it, and its `[run] checkpoint_dir`."""
    command = run_dir / COMMAND
    if not command.is_file():
        return _of_run_file(run_dir)
    try:
        written = json.loads(command.read_text(encoding="utf-8"))
        config, vocabulary = written["config"], written.get(VOCABULARY)
        settings: Watch = build(Watch, config.get("watch", {}), str(command), "watch")
        context = context_of(config, vocabulary if isinstance(vocabulary, int) else None)
        return settings, context, config["run"].get("checkpoint_dir")
    except OSError as error:
        raise ConfigError(f"{command}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{command}: not what a launch writes ({type(error).__name__}: {error}); give the directory of a run"
        ) from None


def _of_run_file(run_dir: Path) -> tuple[Watch, Context, str | None]:
    """The same of a run whose launch has not come as far as its command."""
    file = run_dir / "run.toml"
    if not file.is_file():
        raise ConfigError(f"{run_dir} holds no {COMMAND} and no run.toml; give the directory of a run, runs/NAME")
    config = load(file)
    return config.watch, context_of(dataclasses.asdict(config), None), config.run.checkpoint_dir
