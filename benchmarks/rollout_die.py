# SPDX-License-Identifier: Apache-2.0
"""A die of `benchmarks/rollout.py`: verl's rollout over vLLM-Ascend, of answers whose lengths are given.

For tests/ranks.py, with VLLM_DP_SIZE, VLLM_USE_V1 and RECIPE_REQUEST_SEEDS set; the job says which engines, and which
generations, in this order. A rank writes `<out>.<rank>.json`: of each generation, what came of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import verl_patches.prelude_patch  # noqa: F401  lays the overlay over what is imported from here on

# isort: split
import numpy as np
import torch
import torch.distributed as dist
import vllm.v1.engine.llm_engine  # noqa: F401  imported here once, not by each rank
import vllm_ascend.models.deepseek_v2
import vllm_ascend.worker.worker_v1  # noqa: F401
from torch.distributed.device_mesh import init_device_mesh
from verl.workers.config import HFModelConfig, RolloutConfig
from verl.workers.rollout.base import get_rollout_class

from tests.exactness.rollout.engine_process import batch_of, let_v1_take_float32, named_weights, reference_model
from verl_patches.workers.rollout.vllm_rollout.balance import plan, rebalance
from verl_patches.workers.rollout.vllm_rollout.balance.domain import Domain, HandOverFailed
from verl_patches.workers.rollout.vllm_rollout.balance.plan import Move, Plan, Running, Watch
from verl_patches.workers.rollout.vllm_rollout.request_seeds import SEEDS
from vllm_ascend_patches.worker.step_counts import StepCounts

PLAIN, PLANNED, RANDOM = "plain", "planned", "random"


def run(job: dict[str, Any], rank: int) -> None:
    """What one rank does."""
    world, tp = int(os.environ["WORLD_SIZE"]), job["tp"]
    torch.npu.set_device(rank)
    dist.init_process_group("hccl")
    mesh = init_device_mesh("npu", mesh_shape=(world // tp, tp, 1), mesh_dim_names=["dp", "infer_tp", "infer_pp"])
    let_v1_take_float32()
    plan.PREFILL_WEIGHT, plan.PAUSE_STEPS = job["prefill_weight"], job["pause"]
    rollout = get_rollout_class("vllm", "sync")(
        config=RolloutConfig(
            name="vllm",
            mode="sync",
            prompt_length=job["prompt"],
            response_length=job["longest"],
            tensor_model_parallel_size=tp,
            dtype="float32",
            load_format="dummy",
            enforce_eager=False,
            gpu_memory_utilization=0.3,
            max_num_seqs=job["sizes"][-1],
            max_num_batched_tokens=job["budget"],
            calculate_log_probs=True,
            free_cache_engine=True,
            enable_prefix_caching=False,
            ignore_eos=True,
            engine_kwargs={
                "vllm": {"additional_config": {"torchair_graph_config": {"graph_batch_sizes": job["sizes"]}}}
            },
        ),
        model_config=HFModelConfig(path=job["model"]),
        device_mesh=mesh,
    )
    asyncio.run(rollout.release())
    asyncio.run(rollout.resume(["weights"]))
    asyncio.run(rollout.update_weights(named_weights(reference_model(job["reference"]))))
    asyncio.run(rollout.resume(["kv_cache"]))
    found = [generation(rollout, asked, rank // tp, rank) for asked in job["generations"]]
    Path(f"{job['out']}.{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def generation(rollout: Any, asked: dict[str, Any], engine: int, rank: int) -> dict[str, Any]:
    """One generation of `asked["kind"]`: as vLLM does it, with the planner's moves, or with moves at random.

    `prompts` and `lengths` are those of each engine's rows, `rows` their numbers; `greedy`, or sampled by seeds that
    follow from `seed` and the row; `fails` names a rank, and which part of its hand-overs raises or ends it.
    """
    prompts, lengths = asked["prompts"][engine], asked["lengths"][engine]
    found: dict[str, Any] = {"trace": [], "moves": 0, "plans": 0}
    batch = batch_of(prompts, max(map(len, prompts)), do_sample=not asked["greedy"])
    batch.non_tensor_batch[SEEDS] = np.array([asked["seed"] * 100_000 + row for row in asked["rows"][engine]])
    os.environ[rebalance.OPTION] = str(int(asked["kind"] != PLAIN))
    with ExitStack() as changed:
        changed.enter_context(steps_noted(found["trace"]))
        changed.enter_context(answers_of(rollout.inference_engine, lengths))
        if asked["kind"] != PLAIN:
            plans = random_plans(asked["seed"]) if asked["kind"] == RANDOM else None
            changed.enter_context(plans_noted(found, plans))
            changed.enter_context(experts_kept(rollout, experts := Experts(engine)))
        if asked.get("fails", {}).get("rank") == rank:
            changed.enter_context(failing(asked["fails"]["part"], asked["fails"]["kill"]))
        try:
            output = rollout.generate_sequences(batch).batch
        except HandOverFailed as error:
            return found | {
                "failed": str(error),
                "left": rollout.inference_engine.llm_engine.get_num_unfinished_requests(),
            }
    responses, log_probs = output["responses"], output["rollout_log_probs"]
    found["tokens"] = [row[:length].tolist() for row, length in zip(responses, lengths, strict=True)]
    found["log_probs"] = [row[:length].tolist() for row, length in zip(log_probs, lengths, strict=True)]
    # What is no padding: verl pads tokens with the tokenizer's, and log-probabilities with -1.
    found["beyond"] = sum(
        int((ids[length:] != rollout.pad_token_id).sum() + (values[length:] != -1).sum())
        for ids, values, length in zip(responses, log_probs, lengths, strict=True)
    )
    if asked["kind"] != PLAIN:
        found["experts"] = [len(experts.home), experts.strangers()]
    found["moved"] = [rollout._moved.requests, rollout._moved.tokens]
    return found


class Experts:
    """In the place of what keeps the experts of requests: says of each where it was asked for, and its name there.

    Attributes:
        home: what has come back, by the name at home.
    """

    recording = True

    def __init__(self, engine: int) -> None:
        self._engine = engine
        self._guests: dict[str, np.ndarray] = {}
        self.home: dict[str, np.ndarray] = {}

    def take(self, name: str) -> np.ndarray:
        own = np.array([[[self._engine, int(name) & 0x7FFF]]], dtype=np.int16)
        return self._guests.pop(name) if int(name) >> 32 else own

    def give(self, name: str, experts: np.ndarray) -> None:
        kept = self._guests if int(name) >> 32 else self.home
        assert name not in kept
        kept[name] = experts

    def strangers(self) -> int:
        """Of what has come back, how many were not asked for here, under that name; and what has not gone home."""
        asked = [[[[self._engine, int(name) & 0x7FFF]]] == one.tolist() for name, one in self.home.items()]
        return asked.count(False) + len(self._guests)


@contextmanager
def experts_kept(rollout: Any, experts: Experts) -> Iterator[None]:
    runner = rollout.inference_engine.llm_engine.model_executor.driver_worker.worker.model_runner
    runner.expert_recorder = experts
    try:
        yield
    finally:
        del runner.expert_recorder


@contextmanager
def answers_of(llm: Any, lengths: Sequence[int]) -> Iterator[None]:
    """Within the block the rows' answers have these lengths."""
    stock = llm.generate

    def generate(*, sampling_params: list[Any], **options: Any) -> Any:
        for one, length in zip(sampling_params, lengths, strict=True):
            one.max_tokens = length
        return stock(sampling_params=sampling_params, **options)

    llm.generate = generate
    try:
        yield
    finally:
        del llm.generate


@contextmanager
def steps_noted(trace: list[int]) -> Iterator[None]:
    """Collects the graph of every step within the block, 0 for none."""
    stock = StepCounts.count

    def count(self: StepCounts, size: int | None) -> None:
        trace.append(size or 0)
        stock(self, size)

    StepCounts.count = count  # type: ignore[method-assign]
    try:
        yield
    finally:
        StepCounts.count = stock  # type: ignore[method-assign]


@contextmanager
def plans_noted(found: dict[str, Any], planner: Callable[..., Plan] | None) -> Iterator[None]:
    """Counts plans with moves; with `planner` in the place of the real one, whenever everything decodes."""
    stock, stock_asks = rebalance.plan_moves, Watch.asks

    def plan_moves(engines: list[list[Running]], sizes: Sequence[int]) -> Plan:
        made = (planner or stock)(engines, sizes)
        found["plans"], found["moves"] = found["plans"] + bool(made.moves), found["moves"] + len(made.moves)
        return made

    rebalance.plan_moves = plan_moves
    if planner is not None:
        Watch.asks = lambda self, step, running, prefilling: not prefilling and any(running)  # type: ignore[method-assign]
    try:
        yield
    finally:
        rebalance.plan_moves, Watch.asks = stock, stock_asks  # type: ignore[method-assign]


def random_plans(seed: int) -> Callable[..., Plan]:
    """Any request may go anywhere where there is room, nearly every time."""
    drawn = random.Random(seed)

    def scatter(engines: list[list[Running]], sizes: Sequence[int]) -> Plan:
        counts, moves = [len(running) for running in engines], []
        if drawn.random() < 0.8:
            for source, running in enumerate(engines):
                for one in sorted(running):
                    target = drawn.randrange(len(engines))
                    if drawn.random() < 0.25 and target != source and counts[target] < sizes[-1]:
                        moves.append(Move(one.request, source, target, one.tokens))
                        counts[target], counts[source] = counts[target] + 1, counts[source] - 1
        return Plan(sizes[-1], tuple(sorted(moves)))

    return scatter


@contextmanager
def failing(part: str, kill: bool) -> Iterator[None]:
    """Within the block one part of a hand-over on this rank raises, or ends the process."""

    def fail(*_: Any, **__: Any) -> Any:
        if kill:
            os._exit(0)  # nobody is told
        raise OSError(f"no {part} today")

    owner: Any = Domain if part == "exchange" else rebalance
    stock = getattr(owner, part)
    setattr(owner, part, fail)
    try:
        yield
    finally:
        setattr(owner, part, stock)
