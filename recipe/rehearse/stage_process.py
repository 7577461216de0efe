# SPDX-License-Identifier: Apache-2.0
"""The processes of stages: `python -m recipe.rehearse.stage_process PROGRESS_FD`.

Each is one die of the run, without contents and alone in its world, on which verl's own workers do a step. They are
forked from this one, which has imported everything once. It reads requests from its input, a line of JSON each; lines
of progress, JSON too, go to the file descriptor.
"""

from __future__ import annotations

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import faulthandler
import gc
import importlib
import json
import os
import re
import resource
import select
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

import torch
from hydra import compose, initialize_config_module
from torch_npu import sim

from recipe.launch.processes import die_with_parent
from recipe.rehearse import engine, steering
from recipe.rehearse.batches import FIRST_TOKEN, Lengths
from recipe.rehearse.contents import Contents, at_peak
from recipe.rehearse.counters import BUILD
from recipe.rehearse.expert_load import read_loads
from recipe.rehearse.job import Job, Phase, StageResult
from recipe.rehearse.phases import PhaseCounters
from recipe.text import error_text

SIGN_S, POLL_S = 10.0, 0.1
# The upstreams' workers, and what they import when they are built.
IMPORTED = (
    "recipe.rehearse.step",
    "vllm.v1.engine.llm_engine",
    "vllm_ascend.models.deepseek_v2",
    "vllm_ascend.worker.worker_v1",
)
_WANTED = re.compile(r"\((\d+) bytes wanted, (\d+) bytes free\)")


class Progress:
    """Tells the parent what goes on: phases as they end, and meanwhile how many operators have run."""

    def __init__(self, stage: int, out: TextIO) -> None:
        self._stage, self._out, self._lock = stage, out, threading.Lock()
        self.phase = BUILD
        threading.Thread(target=self._signs, daemon=True).start()

    def begin(self, phase: str) -> None:
        self.phase = phase

    def end(self, phase: Phase) -> None:
        self.tell(peak=phase.peak_bytes, operators=phase.operators, seconds=phase.wall_s)

    def tell(self, **values: Any) -> None:
        with self._lock:
            print(json.dumps({"stage": self._stage, "phase": self.phase, **values}), file=self._out, flush=True)

    def _signs(self) -> None:
        before, phase = 0, ""
        while True:
            time.sleep(SIGN_S)
            operators = sum(sim.op_counts().values())
            if self.phase == phase and operators >= before:
                self.tell(rate=(operators - before) / SIGN_S, rss=_resident())
            before, phase = operators, self.phase


def rehearse(job: Job, progress: Progress) -> StageResult:
    """Do what the job asks; what does not fit on the die ends it, and is part of the result."""
    start = time.monotonic()
    numbers = steering.Numbers()
    sim.make_world_of_one(job.rank, job.world_size)
    sim.make_hollow(job.hollow_from_bytes, numbers)
    contents = Contents()
    counters = PhaseCounters(contents, progress.begin, progress.end)
    oom = None
    try:
        _steps(job, counters, contents)
    except torch.OutOfMemoryError as error:
        oom = _not_fitting(error, job, counters, contents)
    return StageResult(
        key=job.key,
        stage=job.stage,
        rank=job.rank,
        phases=counters.phases,
        wall_s=round(time.monotonic() - start, 3),
        rss_bytes=_resident(),
        numbers_read=dict(numbers.given),
        mindspeed="mindspeed" in sys.modules,
        oom=oom,
    )


def _steps(job: Job, counters: PhaseCounters, contents: Contents) -> None:
    # Here, as it imports the upstreams, and what they take from torch.distributed is to be that of a world of one.
    from recipe.rehearse.pipeline import describe, read_description, steer_pipeline, write_description
    from recipe.rehearse.step import Work, build_workers, run_step

    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_megatron_trainer", overrides=job.overrides).actor_rollout_ref
    torch.manual_seed(job.seed)
    steering.steer_router(steering.Routing(job.load))
    steering.steer_stages()
    counters.loads = read_loads(counters)
    if job.rollout_sequences:
        engine.meet_nobody()
        engine.steer_engine()
        engine.steer_sampler(FIRST_TOKEN)
        engine.steer_engine_router(steering.Routing(job.load))
    with counters.measured(BUILD):
        # A step's batch is smaller here than in the run, and goes into one update.
        workers = build_workers(
            config,
            counters,
            rollout=job.rollout_sequences > 0,
            mini_batch=job.update_sequences,
            contents=contents.of,
        )
    if job.only_describe:
        write_description(describe(workers.actor.actor_module), Path(job.described[0]))
        return
    if job.described:
        steer_pipeline([read_description(Path(file)) for file in job.described])
    lengths = Lengths(job.prompt, job.response, job.padded_prompt, job.padded_response)
    work = Work(
        lengths, job.rollout_sequences, job.forward_sequences, job.update_sequences, job.old_log_probs, job.decode_steps
    )
    for number in range(job.steps):
        run_step(workers, work, counters, seed=job.seed + number)


def _not_fitting(
    error: torch.OutOfMemoryError, job: Job, counters: PhaseCounters, contents: Contents
) -> dict[str, Any]:
    found = _WANTED.search(str(error))
    return {
        "stage": job.stage,
        "phase": counters.phase,
        "wanted_bytes": int(found[1]) if found else None,
        "free_bytes": int(found[2]) if found else None,
        "contents": at_peak({}, contents.bytes_by_kind(), torch.npu.memory_allocated()),
        "error": error_text(error),
    }


def _resident() -> int:
    """Most bytes of host memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def fork(request: Mapping[str, Any], out: TextIO) -> int:
    """A process for one request: the files of its job, its result and its log, and its environment; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        die_with_parent()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.enable()
        os.environ.update(request["environment"])
        job = Job.read(Path(request["job"]))
        progress = Progress(job.stage, out)
        try:
            rehearse(job, progress).write(Path(request["result"]))
        except Exception as error:
            progress.tell(error=error_text(error))
            raise
        code = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        # What verl, vLLM and torch would still do at an orderly end is of no use to a die that never was.
        os._exit(code)


def main() -> int:
    """Serve requests until the input ends and all are done."""
    sim.make_world_of_one(0, 1)  # before anything takes a store from torch.distributed; each child has its own place
    for module in IMPORTED:
        importlib.import_module(module)
    # What is imported by now lives as long as every child: none of them need look through it for garbage.
    gc.collect()
    gc.freeze()
    running: dict[int, int] = {}
    requests = open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115  nothing is read ahead of `select`
    open_ = True
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as out:
        while open_ or running:
            if open_ and select.select([requests], [], [], POLL_S)[0]:
                line = requests.readline()
                open_ = bool(line)
                if line:
                    request = json.loads(line)
                    running[fork(request, out)] = request["stage"]
            elif not open_:
                time.sleep(POLL_S)
            while running and (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] in running:
                    print(json.dumps({"stage": running.pop(ended[0]), "ended": ended[1]}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
