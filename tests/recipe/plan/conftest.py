# SPDX-License-Identifier: Apache-2.0
"""Runs the workers of a layout on simulated dies, for the tests that set what they counted beside what was planned."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recipe.plan.memory import BLOCK_TOKENS, host, memory
from recipe.plan.saving import FROM_DIES, FROM_HOST
from recipe.plan.shards import swapped_in_bytes
from recipe.plan.stages import stage_buffers, stage_tensors
from recipe.plan.subject import Subject, subject
from recipe.runfile.architecture import from_config_json
from recipe.runfile.config import load
from recipe.runfile.derive import Inputs, derive_run
from recipe.runfile.paths import REPO, RunPaths
from recipe.runfile.schema import OFFLOADED, SWAPPED, Recompute
from recipe.tiny.config import tiny_fields
from tests.ranks import Ranks

LIMIT_S = 240
PROMPT, RESPONSE = 40, 24


@dataclass(frozen=True)
class Layout:
    """One way to lay the tiny model out.

    `on_first_half`: each token is sent to so many experts of the first half, and to the others of its four of the
    second; None: as the router chooses. `expert_width`: of the model.
    """

    dies: int
    stages: tuple[int, ...] = (4,)
    tensor: int = 1
    expert: int = 2
    rollout_tensor: int = 1
    recompute: Recompute | None = None
    micro_batch_tokens: int = 4 * (PROMPT + RESPONSE)
    mindspeed: bool = False
    on_first_half: int | None = 2
    expert_width: int = 64
    optimizer: str = OFFLOADED
    seed: int = 1

    def planned(self) -> Subject:
        config = load(REPO / "configs/sim.toml")
        parts: dict[str, dict[str, Any]] = {
            "run": {"save_every": 1},
            "cluster": {"dies_per_node": self.dies},
            "data": {"max_prompt_tokens": PROMPT, "max_response_tokens": RESPONSE},
            "rollout": {
                "tensor_parallel": self.rollout_tensor, "samples_per_prompt": 4, "max_batched_tokens": 512
            },
            "actor": {
                "tensor_parallel": self.tensor, "expert_parallel": self.expert, "stage_layers": list(self.stages),
                "micro_batch_tokens": self.micro_batch_tokens, "recompute": self.recompute,
                "optimizer": self.optimizer,
            },
            "train": {"prompts_per_step": 4},
        }  # fmt: skip
        changed = {name: dataclasses.replace(getattr(config, name), **values) for name, values in parts.items()}
        model = from_config_json({**tiny_fields(), "moe_intermediate_size": self.expert_width})
        run = subject(dataclasses.replace(config, **changed), model, prompt_tokens=PROMPT)
        return dataclasses.replace(run, fused=self.mindspeed, stacked=self.mindspeed)


@dataclass(frozen=True)
class Made:
    """The tiny model with random weights, as Hugging Face directory and as Megatron checkpoint."""

    hf: Path
    checkpoint: Path


def make_model(directory: Path, expert_width: int) -> Made:
    from recipe.tiny.build import random_model
    from recipe.tiny.tokenizer import save_tokenizer
    from recipe.weights.convert import convert

    made = Made(directory / "hf", directory / "mcore")
    random_model(1, moe_intermediate_size=expert_width).save_pretrained(made.hf)
    save_tokenizer(made.hf)
    convert(made.hf, made.checkpoint)
    return made


class Workers:
    """The ranks of layouts, one layout after another, of a process that imports everything once.

    Args:
        mindspeed: the upstream tree that has it, where it takes part.
        log: what that process says.
    """

    def __init__(self, mindspeed: Path | None, log: Path) -> None:
        self.mindspeed = mindspeed
        self._ranks = Ranks("tests.recipe.plan.worker_process", log=log)

    def run(self, planned: Subject, made: Made, directory: Path, on_first_half: int | None, seed: int) -> list[Any]:
        """What each rank counted."""
        config, layout = planned.config, planned.layout
        paths = RunPaths(directory, "plan", directory / "ray")
        job = {
            "overrides": self._overrides(planned, made, paths),
            "prompt": PROMPT,
            "response": RESPONSE,
            "rollout_sequences": layout.rollout_sequences_per_engine,
            "actor_sequences": layout.actor_sequences_per_rank,
            "on_first_half": on_first_half,
            "seed": seed,
            "out": str(directory / "counted"),
        }
        environment = {
            **derive_run(config, paths=paths).environment, "PYTHONPATH": self._path(), "RECIPE_RUN_DIR": ""
        }  # fmt: skip
        self._ranks.run(job, directory / "rank", ranks=layout.dies, limit_s=LIMIT_S, **environment)
        return [json.loads(Path(f"{job['out']}.{rank}.json").read_text()) for rank in range(layout.dies)]

    def close(self) -> None:
        self._ranks.close()

    def _overrides(self, planned: Subject, made: Made, paths: RunPaths) -> list[str]:
        nowhere = paths.run_dir / "none.parquet"
        inputs = Inputs(made.hf, made.checkpoint, nowhere, nowhere, PROMPT)
        derived = derive_run(planned.config, inputs, paths, upstream=self.mindspeed or paths.run_dir)
        return [o for o in derived.overrides if not o.startswith("hydra.")] + [
            "actor_rollout_ref.actor.optim.total_training_steps=10"  # the trainer sets it
        ]

    def _path(self) -> str:
        path = os.environ["PYTHONPATH"]
        return path if self.mindspeed is None else os.pathsep.join([str(REPO), str(self.mindspeed), path])


def comparison(run: Subject, counted: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """{"die, kind": (counted, planned)} in bytes; planned for the tokens that the die's experts were sent."""
    pinned = sum(rank_counts["points"]["ref.begin"]["pinned"] for rank_counts in counted)
    needed = host(run)
    out = {"host, page-locked": (pinned, needed.pinned_total - needed.parts[FROM_DIES])}
    for name, kind in (("copied from the dies", FROM_DIES), ("copied on the host", FROM_HOST)):
        out[f"host, {name} for a checkpoint"] = (sum(rank["saved"][kind] for rank in counted), needed.parts[kind])
    for rank, rank_counts in enumerate(counted):
        stage = rank * run.layout.actor_pipeline // run.layout.dies
        out |= {f"die {rank}, {name}": pair for name, pair in _kinds(run, stage, rank_counts).items()}
    return out


def _kinds(run: Subject, stage: int, rank_counts: dict[str, Any]) -> dict[str, tuple[int, int]]:
    points, planned = rank_counts["points"], memory(run)

    def held(point: str) -> int:
        return int(points[point]["allocated"])

    def brought(name: str) -> int:
        return held(f"rollout.{name}") - held(f"rollout.before_{name}")

    def most(phase: str, *at: str) -> tuple[int, int]:
        sent = dataclasses.replace(run, expert_load=rank_counts["expert_load"].get(phase, 1.0))
        name = "rollout" if phase == "switch" else phase
        return max(points[f"{name}.{point}"]["peak"] for point in at), memory(sent).dies[stage].total(phase)

    load, gone = "load_megatron_model_to_gpu", "offload_megatron_model_to_cpu"
    phases = planned.dies[stage].phases
    weights, gradients = phases["update"]["actor weights"], phases["update"]["gradients"]
    cache, alignment = phases["rollout"]["KV cache"], phases["rollout"]["cache alignment"]
    kinds = {
        "rollout weights": (brought("resume_weights"), phases["switch"]["rollout weights"]),
        "derived weights": (brought("update_weights"), phases["switch"]["derived weights"]),
        "KV cache": (rank_counts["kv_blocks"] * BLOCK_TOKENS * planned.cache.bytes_per_token, cache),
        "KV cache, aligned": (brought("resume_kv_cache"), cache + alignment),
        "actor weights": (held(f"log_prob.{load}") - held("log_prob.begin"), phases["log_prob"]["actor weights"]),
        "reference weights": (held(f"ref.{load}") - held("ref.begin"), phases["ref"]["reference weights"]),
        "weights and gradients": (held(f"update.{load}") - held("update.begin"), weights + gradients),
        "most in rollout": most("rollout", "before_release"),
        "most in switch": most("switch", "update_weights"),
        "most in log_prob": most("log_prob", gone),
        "most in ref": most("ref", gone),
        "most in update": most("update", "before_step", "step"),
    }
    if "optimizer" in phases["update"]:
        counted = held("update.load_megatron_optimizer") - held(f"update.{load}")
        kinds["optimizer"] = (counted, phases["update"]["optimizer"])
    if run.config.actor.optimizer == SWAPPED:
        counted = points["update.step"]["peak"] - held("update.before_step")
        kinds["optimizer swapped in"] = (
            counted,
            swapped_in_bytes(stage_tensors(run, stage), stage_buffers(run, stage)),
        )
    return kinds


@pytest.fixture(scope="session")
def tiny_made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Made]:
    """Makes the model with experts of this width, once."""
    return functools.cache(lambda width: make_model(tmp_path_factory.mktemp("model"), width))


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Without MindSpeed."""
    made = Workers(None, tmp_path_factory.mktemp("workers") / "log")
    yield made
    made.close()


@pytest.fixture(scope="session")
def workers_with_mindspeed(mindspeed_upstream: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Their process is another: MindSpeed changes all of Megatron-core in it."""
    made = Workers(mindspeed_upstream, tmp_path_factory.mktemp("workers") / "log")
    yield made
    made.close()


@pytest.fixture
def plan_and_count(
    tiny_made: Callable[[int], Made], tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., dict[str, tuple[int, int]]]:
    """Plans a `Layout`, given by its fields, runs it, and sets both beside one another."""

    def run(**fields: Any) -> dict[str, tuple[int, int]]:
        layout = Layout(**fields)
        planned = layout.planned()
        workers: Workers = request.getfixturevalue("workers_with_mindspeed" if layout.mindspeed else "workers")
        made = tiny_made(layout.expert_width)
        return comparison(planned, workers.run(planned, made, tmp_path, layout.on_first_half, layout.seed))

    return run


@pytest.fixture(scope="session")
def table() -> Iterator[dict[str, dict[str, tuple[int, int]]]]:
    """What each layout's `comparison` found; printed at the end as the table of docs/PLAN.md."""
    comparisons: dict[str, dict[str, tuple[int, int]]] = {}
    yield comparisons
    print(*markdown(comparisons), sep="\n")


def markdown(comparisons: Mapping[str, Mapping[str, tuple[int, int]]]) -> Iterator[str]:
    """A table, with the die that is farthest off in each cell."""
    kinds = list(dict.fromkeys(kind.partition(", ")[2] for pairs in comparisons.values() for kind in pairs))
    yield f"\n| planned / counted - 1, % | {' | '.join(comparisons)} |"
    yield "|---|" + "---:|" * len(comparisons)
    for name in kinds:
        cells = []
        for pairs in comparisons.values():
            off = [b / a - 1 for kind, (a, b) in pairs.items() if kind.partition(", ")[2] == name]
            cells.append(f"{100 * max(off, key=abs):+.1f}" if off else "")
        yield f"| {name} | {' | '.join(cells)} |"
