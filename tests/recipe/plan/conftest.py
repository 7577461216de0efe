# SPDX-License-Identifier: Apache-2.0
"""Runs the workers of a layout on simulated dies and sets what they counted beside what was planned."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recipe.launch.config import Recompute, RunConfig, load
from recipe.launch.environment import REPO, RunPaths, derived_environment
from recipe.launch.mindspeed import transformer_overrides as mindspeed_overrides
from recipe.launch.overrides import Inputs, hydra_overrides
from recipe.launch.prepare import transformer_overrides
from recipe.plan.memory import BLOCK_TOKENS, Die, Memory, memory
from recipe.plan.subject import Subject, subject

LIMIT_S = 240
PROMPT, RESPONSE = 40, 24


@dataclass(frozen=True)
class Layout:
    """One way to lay the tiny model out."""

    dies: int
    stages: tuple[int, ...] = (4,)
    tensor: int = 1
    expert: int = 2
    rollout_tensor: int = 1
    recompute: Recompute | None = None
    micro_batch_tokens: int = 4 * (PROMPT + RESPONSE)
    mindspeed: bool = False

    def planned(self) -> Subject:
        config = load(REPO / "configs/sim.toml")
        parts: dict[str, dict[str, Any]] = {
            "cluster": {"dies_per_node": self.dies},
            "data": {"max_prompt_tokens": PROMPT, "max_response_tokens": RESPONSE},
            "rollout": {
                "tensor_parallel": self.rollout_tensor, "samples_per_prompt": 4, "max_batched_tokens": 512
            },
            "actor": {
                "tensor_parallel": self.tensor, "expert_parallel": self.expert, "stage_layers": list(self.stages),
                "micro_batch_tokens": self.micro_batch_tokens, "recompute": self.recompute,
            },
            "train": {"prompts_per_step": 4},
        }  # fmt: skip
        changed = {name: dataclasses.replace(getattr(config, name), **values) for name, values in parts.items()}
        of = subject(dataclasses.replace(config, **changed), prompt_tokens=PROMPT)
        return dataclasses.replace(of, fused=self.mindspeed, stacked=self.mindspeed)


@dataclass(frozen=True)
class Made:
    """The tiny model with random weights, as Hugging Face directory and as Megatron checkpoint."""

    hf: Path
    checkpoint: Path


def make_model(directory: Path) -> Made:
    from recipe.tiny.build import random_model
    from recipe.tiny.tokenizer import save_tokenizer
    from recipe.weights.convert import convert

    made = Made(directory / "hf", directory / "mcore")
    random_model(1).save_pretrained(made.hf)
    save_tokenizer(made.hf)
    convert(made.hf, made.checkpoint)
    return made


def run_workers(of: Subject, made: Made, directory: Path, mindspeed: Path | None) -> list[dict[str, Any]]:
    """What each rank counted; `mindspeed`: the upstream tree that has it, where it takes part."""
    config: RunConfig = of.config
    paths = RunPaths(directory, "plan", directory / "ray")
    nowhere = directory / "none.parquet"
    transformer = transformer_overrides(made.hf)
    path = os.environ["PYTHONPATH"]
    if mindspeed is not None:
        transformer |= mindspeed_overrides()
        path = os.pathsep.join([str(REPO), str(mindspeed), path])
    inputs = Inputs(made.hf, made.checkpoint, nowhere, nowhere, PROMPT, transformer)
    overrides = hydra_overrides(config, of.layout, inputs, paths)
    job = {
        "overrides": [o for o in overrides if not o.startswith("hydra.")]
        + ["actor_rollout_ref.actor.optim.total_training_steps=10"],  # the trainer sets it
        "prompt": PROMPT,
        "response": RESPONSE,
        "rollout_sequences": of.layout.rollout_sequences_per_engine,
        "actor_sequences": of.layout.actor_sequences_per_rank,
        "out": str(directory / "counted"),
    }
    (directory / "job.json").write_text(json.dumps(job))
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    shared = {
        **os.environ,
        **derived_environment(config, of.layout, paths),
        "PYTHONPATH": path,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(of.layout.dies),
        "RECIPE_RUN_DIR": "",
    }
    command = [sys.executable, str(Path(__file__).with_name("worker_process.py")), str(directory / "job.json")]
    processes, logs = [], []
    for rank in range(of.layout.dies):
        logs.append(open(directory / f"log.{rank}", "w"))  # noqa: SIM115  closed below
        environment = {**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        processes.append(subprocess.Popen(command, env=environment, stdout=logs[-1], stderr=subprocess.STDOUT))
    deadline = time.monotonic() + LIMIT_S
    try:
        # A rank that fails leaves the others waiting for it.
        while any(p.poll() is None for p in processes) and all(p.poll() in (None, 0) for p in processes):
            assert time.monotonic() < deadline, f"the workers took more than {LIMIT_S} s"
            time.sleep(0.1)
    finally:
        failed = [rank for rank, p in enumerate(processes) if p.poll() not in (None, 0)]
        for process in processes:
            process.kill()
            process.wait()
        for log in logs:
            log.close()
    assert not failed, "\n".join((directory / f"log.{rank}").read_text()[-3000:] for rank in failed)
    return [json.loads(Path(f"{job['out']}.{rank}.json").read_text()) for rank in range(of.layout.dies)]


def comparison(of: Subject, planned: Memory, counted: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """{"stage, kind": (counted, planned)}: bytes of a die, the mean of a stage's dies.

    Tokens are planned to spread evenly over the experts of a stage; how a random router spreads them differs between
    its dies, not in their mean.
    """
    out: dict[str, tuple[int, int]] = {}
    for die in planned.dies:
        per_stage = of.layout.dies // of.layout.actor_pipeline
        ranks = counted[die.stage * per_stage : (die.stage + 1) * per_stage]
        out |= {f"stage {die.stage}, {name}": pair for name, pair in _kinds(die, planned, ranks).items()}
    return out


def _kinds(die: Die, planned: Memory, ranks: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    def held(point: str) -> int:
        return sum(rank["points"][point]["allocated"] for rank in ranks) // len(ranks)

    def most(*points: str) -> int:
        return sum(max(rank["points"][point]["peak"] for point in points) for rank in ranks) // len(ranks)

    load, gone = "load_megatron_model_to_gpu", "offload_megatron_model_to_cpu"
    phases, blocks = die.phases, ranks[0]["kv_blocks"]
    weights, gradients = phases["update"]["actor weights"], phases["update"]["gradients"]
    cache, alignment = phases["rollout"]["KV cache"], phases["rollout"]["cache alignment"]

    def brought(name: str) -> int:
        return held(f"rollout.{name}") - held(f"rollout.before_{name}")

    return {
        "rollout weights": (brought("resume_weights"), phases["switch"]["rollout weights"]),
        "derived weights": (brought("update_weights"), phases["switch"]["derived weights"]),
        "KV cache": (blocks * BLOCK_TOKENS * planned.cache.bytes_per_token, cache),
        "KV cache, aligned": (brought("resume_kv_cache"), cache + alignment),
        "actor weights": (held(f"log_prob.{load}") - held("log_prob.begin"), phases["log_prob"]["actor weights"]),
        "reference weights": (held(f"ref.{load}") - held("ref.begin"), phases["ref"]["reference weights"]),
        "weights and gradients": (held(f"update.{load}") - held("update.begin"), weights + gradients),
        "optimizer": (held("update.load_megatron_optimizer") - held(f"update.{load}"), phases["update"]["optimizer"]),
        "most in rollout": (most("rollout.before_release"), die.total("rollout")),
        "most in switch": (most("rollout.update_weights"), die.total("switch")),
        "most in log_prob": (most(f"log_prob.{gone}"), die.total("log_prob")),
        "most in ref": (most(f"ref.{gone}"), die.total("ref")),
        "most in update": (most("update.step"), die.total("update")),
    }


@pytest.fixture(scope="session")
def tiny_made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def plan_and_count(
    tiny_made: Made, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., dict[str, tuple[int, int]]]:
    """Plans a `Layout`, given by its fields, runs it, and sets both beside one another."""

    def run(**fields: Any) -> dict[str, tuple[int, int]]:
        layout = Layout(**fields)
        tree = request.getfixturevalue("mindspeed_upstream") if layout.mindspeed else None
        of = layout.planned()
        return comparison(of, memory(of), run_workers(of, tiny_made, tmp_path, tree))

    return run
