# SPDX-License-Identifier: Apache-2.0
"""How a run finds its directory again: whether it goes on in it, and from which checkpoint."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.launch.config import RunConfig, require_name
from recipe.launch.errors import AlreadyFinished, ConfigError, LaunchError
from recipe.launch.masking import described
from recipe.launch.meeting import differing
from recipe.launch.overrides import quote
from recipe.launch.processes import is_halted
from recipe.launch.progress import Clock
from recipe.report.recorder import NODES

RESULT = "result.json"
COMMAND = "command.json"
# What may change from one attempt to the next: how long, how often, how patiently, and where to meet.
_MAY_CHANGE = {
    "run": (
        *("steps", "validate_every", "validate_first", "save_every", "keep_checkpoints", "resume", "output_dir"),
        *("setup_deadline_s", "step_deadline_s"),
    ),
    "cluster": (
        *("head", "hosts", "interface", "ray_port", "dashboard_port", "hccl_base_port", "wait_deadline_s"),
        *("collective_timeout_s", "hbm_gib_per_die", "host_memory_gib_per_node"),
    ),
}
# Says nothing about the training itself.
_FREE_SECTIONS = ("watch",)


@dataclass(frozen=True)
class Start:
    """Where a run writes, and from which checkpoint it goes on: None for one that begins."""

    run_dir: Path
    checkpoint: Path | None = None

    @property
    def step(self) -> int:
        """The last step that is done already."""
        return 0 if self.checkpoint is None else step_of(self.checkpoint)

    def overrides(self) -> list[str]:
        """What verl must be told beside the derived overrides, which come first."""
        if self.checkpoint is None:
            return ["trainer.resume_mode=disable"]
        return [
            "trainer.resume_mode=resume_path",
            f"trainer.resume_from_path={quote(str(self.checkpoint))}",
            # This step has been validated, or is not to be; its metrics would stand in the file twice.
            "trainer.val_before_train=false",
        ]


@contextmanager
def only_launcher(name: str, run_dir: Path) -> Iterator[None]:
    """While the block runs no other launcher works on the run `name` in `run_dir`.

    Raises:
        ConfigError: a name that is no file name.
        LaunchError: another launcher does, or another user has.
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
    """That another launcher holds the lock, and what to do; `content` is what it has written into it."""
    elsewhere = "or give this one another --name"
    if not content.strip().isdigit():
        return f"another launcher is at work on run {name}; stop it, {elsewhere}"
    pid = int(content)
    text = f"another launcher (pid {pid}) is at work on run {name}"
    if not is_halted(pid):
        return f"{text}; stop it, {elsewhere}"
    return f"{text}, but halted (Ctrl-Z); `kill -CONT {pid}` lets it go on, `kill -9 {pid}` ends it, {elsewhere}"


def open_run(config: RunConfig, run_dir: Path, checkpoints: Path, fresh: bool, clock: Clock) -> Start:
    """The directory of the run: new, or that of an earlier attempt that is continued.

    An earlier attempt is continued from its last whole checkpoint when `[run] resume` is "auto". Without a checkpoint
    its directory is kept under another name and the run begins anew.

    Args:
        config: the run.
        run_dir: the run's directory.
        checkpoints: where this run's checkpoints are.
        fresh: begin anew in any case.
        clock: says which it is, and why.

    Raises:
        ConfigError: there is a checkpoint, and it cannot be continued with this run file; the message says what
            differs.
        AlreadyFinished: nothing is left to do.
    """
    whole = whole_checkpoints(checkpoints)
    if not run_dir.exists():
        if whole:
            raise ConfigError(
                f"{checkpoints} holds checkpoints, but {run_dir}, which would tell what of, is not there; name another "
                "[run] checkpoint_dir"
            )
        (run_dir / "logs").mkdir(parents=True)
        return Start(run_dir)
    if fresh or config.run.resume == "never":
        return _anew(run_dir, checkpoints, "asked to begin anew", clock)
    if not whole:
        partly = sorted(path.name for path in checkpoints.glob("global_step_*"))
        reason = f"its checkpoints ({', '.join(partly)}) are not whole" if partly else "it has saved no checkpoint"
        return _anew(run_dir, checkpoints, reason, clock)
    checkpoint = whole[-1]
    _require_same(config, run_dir)
    step = step_of(checkpoint)
    if step >= config.run.steps:
        raise AlreadyFinished(
            f"{run_dir} has finished {step} of {config.run.steps} steps; to go on, raise [run] steps; to begin anew, "
            "give --fresh, or another --name"
        )
    clock.say(f"going on in {run_dir} from its checkpoint of step {step}")
    return Start(run_dir, checkpoint)


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("_")[2])


def whole_checkpoints(directory: Path) -> list[Path]:
    """The checkpoints that were written to their end, by step.

    Megatron-core writes metadata.json last of all; verl then writes the state of its data loader, and after that the
    step's number into latest_checkpointed_iteration.txt.
    """
    found = [path for path in directory.glob("global_step_*") if path.name.rpartition("_")[2].isdigit()]
    parts = ("actor/dist_ckpt/.metadata", "actor/dist_ckpt/metadata.json", "data.pt")
    latest = _latest(directory)
    whole = [path for path in found if step_of(path) <= latest and all((path / part).is_file() for part in parts)]
    return sorted(whole, key=step_of)


def _latest(directory: Path) -> int:
    try:
        return int((directory / "latest_checkpointed_iteration.txt").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 0


def begin_attempt(start: Start) -> None:
    """Put the logs and outcome of the last attempt aside, and take the steps after the checkpoint out of the metrics.

    What is put aside goes to `attempts/NUMBER/`, the metrics as they were too.
    """
    if start.checkpoint is None:
        return
    run_dir = start.run_dir
    number = 1 + sum(1 for path in (run_dir / "attempts").glob("*") if path.is_dir())
    aside = run_dir / "attempts" / str(number)
    aside.mkdir(parents=True)
    for name in ("logs", COMMAND, RESULT, "run.toml"):
        if (run_dir / name).exists():
            (run_dir / name).rename(aside / name)
    (run_dir / "logs").mkdir()
    for logs in (run_dir / NODES).glob("*/logs"):
        (aside / NODES / logs.parent.name).mkdir(parents=True)
        logs.rename(aside / NODES / logs.parent.name / "logs")
    metrics = run_dir / "metrics.jsonl"
    if not metrics.is_file():
        return
    shutil.copyfile(metrics, aside / metrics.name)
    kept = [line for line in metrics.read_text(encoding="utf-8").splitlines() if _is_until(line, start.step)]
    unfinished = run_dir / ".metrics.jsonl.unfinished"
    unfinished.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
    os.replace(unfinished, metrics)


def _is_until(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError, TypeError):
        return False  # a line torn by the end of the process


def _anew(run_dir: Path, checkpoints: Path, reason: str, clock: Clock) -> Start:
    moved = [run_dir] if checkpoints.is_relative_to(run_dir) else [run_dir, checkpoints]
    number = next(n for n in range(1, 10**6) if not any(_aside(path, n).exists() for path in moved))
    for path in moved:
        if path.exists():
            path.rename(_aside(path, number))
    clock.say(f"the earlier {run_dir.name} is kept as {_aside(run_dir, number)} ({reason}); the run begins anew")
    (run_dir / "logs").mkdir(parents=True)
    return Start(run_dir)


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _require_same(config: RunConfig, run_dir: Path) -> None:
    """The run file says the same as that of the attempt which saved the checkpoint."""
    try:
        before = json.loads((run_dir / COMMAND).read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError):
        last = sorted((run_dir / "attempts").glob(f"*/{COMMAND}"), key=lambda path: int(path.parent.name))
        if not last:
            raise ConfigError(
                f"{run_dir} has a checkpoint, but no {COMMAND} that tells how it was made; give --fresh to begin anew, "
                "or another --name"
            ) from None
        before = json.loads(last[-1].read_text(encoding="utf-8"))["config"]
    now = json.loads(json.dumps(described(config)))
    changed = differing(_fixed(before), _fixed(now), words=("now", "before"))
    if changed:
        raise ConfigError(
            f"{run_dir} cannot go on with this run file: {'; '.join(changed)}. Put that back, or give --fresh to begin "
            "anew, or another --name"
        )


def _fixed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that a continued run shares with the attempt before it."""
    return {
        section: {key: value for key, value in content.items() if key not in _MAY_CHANGE.get(section, ())}
        if isinstance(content, Mapping)
        else content
        for section, content in values.items()
        if section not in _FREE_SECTIONS
    }
