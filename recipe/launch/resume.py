# SPDX-License-Identifier: Apache-2.0
"""Whether a run continues an earlier attempt in its directory, and from which checkpoint."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.checkpoints import TRACKER, Checkpoint, look
from recipe.clock import Clock
from recipe.launch.attempts import ATTEMPTS, begin_anew, put_aside
from recipe.launch.choice import choose
from recipe.launch.errors import AlreadyFinished
from recipe.launch.processes import is_halted
from recipe.report.marks import SETTING, Mark, add_mark
from recipe.runfile.config import require_name
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.hydra import quote
from recipe.runfile.paths import COMMAND, RunPaths
from recipe.runfile.schema import RunConfig
from recipe.runfile.settings import Difference, differences, require_acceptable, require_continuable
from recipe.runfile.typed_toml import CHANGES


@dataclass(frozen=True)
class ResumeRequest:
    """What the command line asks of a run that has been there before.

    `fresh`: begin anew in any case. `from_step`: go on from the checkpoint of this step, not from the newest whole one.
    `verify`: compare checksums, not sizes alone. `accepted`: keys that may differ though they change the run.
    """

    fresh: bool = False
    from_step: int | None = None
    verify: bool = False
    accepted: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """Where a run writes, and from which checkpoint it goes on: None for one that begins.

    `later`: checkpoints of steps that are done again. `changed`: the accepted settings in which it differs from the run
    that saved the checkpoint.
    """

    run_dir: Path
    checkpoint: Path | None = None
    step: int = 0
    later: tuple[Checkpoint, ...] = ()
    changed: tuple[Difference, ...] = ()

    def overrides(self) -> list[str]:
        """What verl must be told beside the derived overrides, which come first."""
        if self.checkpoint is None:
            return ["trainer.resume_mode=disable"]
        return [
            "trainer.resume_mode=resume_path",
            f"trainer.resume_from_path={quote(str(self.checkpoint))}",
            # The step of the checkpoint was validated in the earlier attempt; its metrics would be in the file twice.
            "trainer.val_before_train=false",
        ]


@contextmanager
def only_launcher(name: str, run_dir: Path) -> Iterator[None]:
    """Hold the lock of the run `name` in `run_dir`, so that no other launcher works on it during the block.

    Raises:
        ConfigError: a name that is no file name.
        LaunchError: another launcher holds it, or the run is another user's.
    """
    require_name(name)
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    path = run_dir.with_name(f".{name}.lock")
    try:
        lock = open(path, "a+b", buffering=0)  # noqa: SIM115
    except PermissionError:
        raise LaunchError(
            f"{path} belongs to another user, whose run {name} is; give this one another --name, or another place in "
            "RECIPE_RUNS"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise LaunchError(_at_work(name, lock.read(32))) from None
        with suppress(OSError):  # a full disk; the lock holds without the number
            lock.truncate(0)
            lock.write(str(os.getpid()).encode())
        yield


def _at_work(name: str, content: bytes) -> str:
    """The message that another launcher holds the lock, and what to do; `content` is what that one wrote into it."""
    elsewhere = "or give this one another --name"
    if not content.strip().isdigit():
        return f"another launcher is at work on run {name}; stop it, {elsewhere}"
    pid = int(content)
    text = f"another launcher (pid {pid}) is at work on run {name}"
    if not is_halted(pid):
        return f"{text}; stop it, {elsewhere}"
    return f"{text}, but halted (Ctrl-Z); `kill -CONT {pid}` lets it go on, `kill -9 {pid}` ends it, {elsewhere}"


def open_run(config: RunConfig, paths: RunPaths, request: ResumeRequest, clock: Clock) -> Start:
    """The directory of the run: new, or that of an earlier attempt that is continued.

    An earlier attempt is continued from its newest whole checkpoint when `[run] resume` is "auto". Where it has saved
    none, its directory is kept under another name and the run begins anew; not so where there is anything that may be
    a checkpoint.

    Args:
        config: the run.
        paths: where it keeps things, its checkpoints among them.
        request: what the command line asks for.
        clock: prints which of the two it is, and why.

    Raises:
        ConfigError: it cannot be continued as it is asked for; the message says what was found and what to do.
        LaunchError: a directory cannot be read or moved.
        AlreadyFinished: nothing is left to do.
    """
    require_acceptable(request.accepted)
    try:
        return _open_run(config, paths.run_dir, paths.checkpoints, request, clock)
    except OSError as error:
        raise LaunchError(f"the earlier run cannot be looked at: {error.filename}: {error.strerror}") from error


def _open_run(config: RunConfig, run_dir: Path, checkpoints: Path, request: ResumeRequest, clock: Clock) -> Start:
    available = look(checkpoints)
    finished = [checkpoint for checkpoint in available if not checkpoint.unfinished]
    if not run_dir.exists():
        if finished:
            raise ConfigError(
                f"{checkpoints} holds checkpoints, but {run_dir}, which would tell what of, is not there; name another "
                "[run] checkpoint_dir"
            )
        if request.from_step is not None:
            raise ConfigError(f"--from-step {request.from_step}: there is no {run_dir}, so nothing to go on from")
        (run_dir / "logs").mkdir(parents=True)
        return Start(run_dir)
    if request.fresh or config.run.resume == "never":
        return _anew(run_dir, checkpoints, "asked to begin anew", clock)
    if not finished and request.from_step is None:
        _require_no_trace(checkpoints, available)
        reason = "its first checkpoint was not written to its end" if available else "it has saved no checkpoint"
        return _anew(run_dir, checkpoints, reason, clock)
    chosen = choose(run_dir, checkpoints, available, request.from_step, request.verify, clock.say)
    if chosen.step >= config.run.steps:
        raise AlreadyFinished(
            f"{run_dir} has finished {chosen.step} of {config.run.steps} steps; to go on, raise [run] steps; to begin "
            "anew, give --fresh, or another --name"
        )
    changed = _compare(config, run_dir, chosen, request, clock.say)
    clock.say(f"going on in {run_dir} from its checkpoint of step {chosen.step}")
    later = tuple(checkpoint for checkpoint in available if checkpoint.step > chosen.step)
    if kept := [checkpoint.path.name for checkpoint in later if not checkpoint.unfinished]:
        clock.say(f"kept, and not gone on from: {', '.join(kept)}, in {checkpoints}/aside")
    return Start(run_dir, chosen.path, chosen.step, later, changed)


def _require_no_trace(checkpoints: Path, available: Sequence[Checkpoint]) -> None:
    tracker = checkpoints / TRACKER
    if not available and tracker.exists():
        raise ConfigError(
            f"{tracker} says that checkpoints have been saved here, but there is no global_step_N beside it; bring "
            "them back, or give --fresh to begin anew, or another --name"
        )


def _compare(
    config: RunConfig, run_dir: Path, checkpoint: Checkpoint, request: ResumeRequest, say: Callable[[str], None]
) -> tuple[Difference, ...]:
    """Compare the run file with that of the checkpoint; prints free changes and returns the accepted ones."""
    before = _settings_of(run_dir, checkpoint)
    if before is None:
        raise ConfigError(
            f"neither {checkpoint.path} nor {run_dir} tells with which run file it was made; give --fresh to begin "
            "anew, or another --name"
        )
    changes = differences(before, config)
    require_continuable(changes, request.accepted, f"{run_dir} cannot go on from step {checkpoint.step}")
    accepted = tuple(change for change in changes if change.on_resume == CHANGES)
    if free := [change.text for change in changes if change not in accepted]:
        say(f"the same run under other settings: {'; '.join(free)}")
    if accepted:
        say(f"another run from here on, as accepted: {'; '.join(change.text for change in accepted)}")
    return accepted


def _settings_of(run_dir: Path, checkpoint: Checkpoint) -> Mapping[str, Any] | None:
    """The run file with which a checkpoint was made, else the run's last one; None where neither is known."""
    assert checkpoint.manifest is not None
    candidates = [checkpoint.manifest.run.get("config"), *map(_config_in, _commands(run_dir))]
    return next((config for config in candidates if isinstance(config, dict)), None)


def _commands(run_dir: Path) -> list[Path]:
    """The files that tell how each attempt was started, the last one first."""
    attempts = [path for path in (run_dir / ATTEMPTS).glob("*") if path.name.isdecimal()]
    attempts.sort(key=lambda path: int(path.name), reverse=True)
    return [directory / COMMAND for directory in (run_dir, *attempts)]


def _config_in(command: Path) -> Any:
    try:
        return json.loads(command.read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def begin_attempt(start: Start, checkpoints: Path) -> None:
    """Put what the last attempt left aside, and note accepted settings as marks on the curves of the run.

    Raises:
        LaunchError: some file cannot be moved or written.
    """
    if start.checkpoint is None:
        return
    try:
        put_aside(start.run_dir, checkpoints, start.step, start.later)
        for change in start.changed:
            add_mark(start.run_dir, Mark(start.step + 1, SETTING, change.key, change.text))
    except OSError as error:
        raise LaunchError(f"the earlier attempt cannot be put aside: {error.filename}: {error.strerror}") from error


def _anew(run_dir: Path, checkpoints: Path, reason: str, clock: Clock) -> Start:
    kept = begin_anew(run_dir, checkpoints)
    clock.say(f"the earlier {run_dir.name} is kept as {kept} ({reason}); the run begins anew")
    return Start(run_dir)


def accepted_keys(changed: Collection[Difference]) -> list[str]:
    """The keys of accepted changes, for command.json."""
    return [change.key for change in changed]
