# SPDX-License-Identifier: Apache-2.0
"""Job and environment of each stage's process, by way of all that a launch derives from the run file."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from recipe.own_packages import own_packages
from recipe.rehearse.job import Job
from recipe.rehearse.subject import HOLLOW_FROM_BYTES, Rehearsed
from recipe.runfile.derive import Derived, Inputs, derive_run
from recipe.runfile.inherited import full_environment
from recipe.runfile.paths import REPO, RunPaths

# The driver's trainer fills it in, of the steps of the run.
_BY_TRAINER = "actor_rollout_ref.actor.optim.total_training_steps"
# The overrides that a stage's tensors follow from: their descriptions outlive a change of all others.
_SHAPING = (".model.", ".actor.megatron.")


def make_job(run: Rehearsed, stage: int, model: Path, directory: Path) -> Job:
    """What the process of a stage is asked.

    Args:
        run: what is rehearsed.
        stage: of the pipeline, from 0.
        model: the directory of `model_files.make_model`.
        directory: the rehearsal's.
    """
    layout, planned = run.planned.layout, run.planned
    overrides = [one for one in _derived(run, stage, model, directory).overrides if not one.startswith("hydra.")]
    job = Job(
        key="",
        stage=stage,
        rank=run.rank(stage),
        world_size=layout.dies,
        overrides=[*overrides, f"{_BY_TRAINER}={run.config.run.steps}"],
        forward_sequences=run.forward_sequences,
        update_sequences=run.update_sequences(stage),
        rollout_sequences=run.rollout_sequences(stage),
        decode_steps=run.decode_steps,
        old_log_probs=not planned.on_policy,
        lengths=run.lengths,
        load=run.options.expert_load,
        steps=run.steps,
        seed=run.config.run.seed,
        saves=run.saves,
        hollow_from_bytes=HOLLOW_FROM_BYTES,
    )
    asked = [dataclasses.asdict(job), _environment(run, stage, model, directory), _code()]
    return dataclasses.replace(job, key=_key(asked))


def make_description_jobs(run: Rehearsed, model: Path, directory: Path) -> list[Job]:
    """For each stage of the pipeline the job to build it, or one like it, so that others know its tensors."""
    planned, jobs = run.planned, []
    last = planned.layout.actor_pipeline - 1
    # Stages between the ends have the same tensors, by the same names, if they have as many layers of each kind.
    of_kind: dict[tuple[bool, bool, int, int], Job] = {}
    for stage, layers in enumerate(planned.layout.stage_layers):
        dense = max(0, min(layers, planned.model.dense_layers - planned.stage_start(stage)))
        kind = (stage == 0, stage == last, layers, dense)
        if kind not in of_kind:
            job = dataclasses.replace(make_job(run, stage, model, directory), rollout_sequences=0, only_describe=True)
            shaping = [one for one in job.overrides if any(name in one for name in _SHAPING)]
            key = _key([job.stage, job.rank, job.world_size, shaping, _code()])
            of_kind[kind] = dataclasses.replace(job, key=key)
        jobs.append(of_kind[kind])
    return jobs


def with_descriptions(job: Job, files: Sequence[Path]) -> Job:
    """The job of a stage that is told of all others."""
    return dataclasses.replace(job, described=tuple(str(file) for file in files))


def _key(asked: object) -> str:
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def environment(run: Rehearsed, stage: int, model: Path, directory: Path) -> dict[str, str]:
    """The whole environment of a stage's process."""
    return full_environment(_environment(run, stage, model, directory))


def _environment(run: Rehearsed, stage: int, model: Path, directory: Path) -> dict[str, str]:
    """What it has beside the inherited one: that of a worker of the run, on one simulated die."""
    of_run = derive_run(run.given, paths=_paths(directory, stage)).environment
    # What steers vLLM and vLLM-Ascend on an NPU steers them here, and HCCL's buffers are as large as there.
    engine = {name: value for name, value in of_run.items() if name.startswith(("VLLM_", "HCCL_BUFFSIZE"))}
    hardware = run.given.node_hardware
    return {
        **run.given.environment,
        **_derived(run, stage, model, directory).environment,
        **engine,
        "NPU_SIM_DEVICES": "1",
        "NPU_SIM_STRICT": str(int(run.strict)),
        **({"NPU_SIM_DIE": hardware.limits} if hardware is not None and hardware.limits is not None else {}),
        "RANK": str(run.rank(stage)),
        "WORLD_SIZE": str(run.planned.layout.dies),
        "LOCAL_RANK": "0",
        # Nobody is there to meet.
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        # The sampler's choices of experts have no contents that could be replayed.
        "RECIPE_ROUTING_REPLAY": "off",
        # No records of a run.
        "RECIPE_RUN_DIR": "",
    }


def _derived(run: Rehearsed, stage: int, model: Path, directory: Path) -> Derived:
    nowhere = directory / "none.parquet"
    inputs = Inputs(model, None, nowhere, nowhere, run.planned.prompt_tokens)
    return derive_run(run.config, inputs, _paths(directory, stage))


def _paths(directory: Path, stage: int) -> RunPaths:
    own = directory / f"stage_{stage}"
    return RunPaths(own, f"{directory.name}-rehearsal", own)


@cache
def _code() -> str:
    """A hash of what computes the result: our packages, the upstreams' manifest, the simulator."""
    from recipe.runfile.paths import upstream_dir

    files = [file for package in own_packages() for file in (REPO / package).rglob("*.py")]
    files.append(upstream_dir() / "MANIFEST.json")
    simulator = importlib.util.find_spec("torch_npu")
    for place in () if simulator is None else simulator.submodule_search_locations or ():
        files += [file for file in Path(place).rglob("*") if file.suffix in (".py", ".so")]
    digest = hashlib.sha256()
    for file in sorted(files):
        if file.is_file():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
