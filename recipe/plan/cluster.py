# SPDX-License-Identifier: Apache-2.0
"""The smallest cluster that a run fits on: other numbers of nodes and layouts, all else as in the run file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from recipe.plan.memory import Memory, memory
from recipe.plan.parameters import BF16, FP32, total_parameters
from recipe.plan.subject import Subject, subject
from recipe.runfile.derive import derive_run
from recipe.runfile.engines import exchanged_dies, misfits
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import CUDA, Actor, Cluster, Recompute, Rollout, RunConfig

MOST_NODES = 64
ENGINE_SIZES = (1, 2, 4, 8, 16, 32)
TRAINING = ("log_prob", "ref", "update")


@dataclass(frozen=True)
class SmallestCluster:
    """The run on the smallest cluster, in the best of its layouts there."""

    run: Subject
    memory: Memory
    fullest_bytes: int


def by_room(found: SmallestCluster) -> float:
    """The best layout is that whose fullest die has most room."""
    return found.fullest_bytes


def smallest_cluster(
    run: Subject, order: Callable[[SmallestCluster], float | tuple[float, ...]] = by_room
) -> SmallestCluster | None:
    """The least number of nodes (of a simulated machine: of dies) that the run fits on; None above `MOST_NODES`.

    Of its layouts there the first by `order` is taken. The tensor parallel size of the actor, the batch, the lengths
    and the offloads stay as they are. Micro-batches are of one sequence; with recomputation by "block" all layers of
    the new stages are recomputed, by "uniform" one by one. Layouts that the batch does not divide by are left out,
    those whose engines model or device rule out, and one rank for all experts, which verl 0.6.1 cannot hand to the
    rollout: preflight accepts what is found.
    """
    parameters, strict = total_parameters(run.model), run.on_npu or derive_run(run.config).strict
    for size in range(1, MOST_NODES + 1):
        cluster = _cluster(run.config, size)
        if parameters * (BF16 + FP32) > cluster.nodes * cluster.dies_per_node * run.config.hbm_bytes_per_die:
            continue  # no room even for weights and gradients
        layouts = []
        for actor in _actors(run, cluster):
            for rollout in _rollouts(run, cluster):
                config = dataclasses.replace(run.config, cluster=cluster, rollout=rollout, actor=actor)
                try:
                    candidate = subject(config, run.model, run.prompt_tokens)
                    candidate = dataclasses.replace(candidate, expert_load=run.expert_load)
                    if any(misfits(config, candidate.layout, run.model, strict)):
                        continue
                    needed = memory(candidate)
                except ConfigError:
                    continue
                if any(phase in TRAINING for _, phase in needed.too_full):
                    break  # no layout of the rollout changes that
                if not needed.fits or not host_fits(candidate, needed):
                    continue
                fullest = max(die.total(die.fullest) + die.outside_total for die in needed.dies)
                layouts.append(SmallestCluster(candidate, needed, fullest))
        if layouts:
            return min(layouts, key=order)
    return None


def host_fits(run: Subject, needed: Memory) -> bool:
    """Whether host memory holds what a node's dies put there; True on a simulated machine whose size is not given."""
    host_gib = run.config.host_gib_per_node
    return host_gib is None or needed.host.total <= host_gib * 2**30


def _cluster(config: RunConfig, size: int) -> Cluster:
    if config.simulated:
        return dataclasses.replace(config.cluster, nodes=1, dies_per_node=size)
    return dataclasses.replace(config.cluster, nodes=size)


def _actors(run: Subject, cluster: Cluster) -> Iterator[Actor]:
    dies, tensor = cluster.nodes * cluster.dies_per_node, run.config.actor.tensor_parallel
    for stages in _divisors(dies):
        if stages > run.model.layers or dies // stages % tensor:
            continue
        experts = _most_experts(run.model.experts, dies // stages) if run.model.experts else 1
        if experts == 1 and run.model.experts:
            continue
        for layers in _stage_lists(run.model.layers, stages):
            yield dataclasses.replace(
                run.config.actor,
                stage_layers=layers,
                expert_parallel=experts,
                recompute=_recompute(run, layers),
                micro_batch_tokens=run.sequence_tokens,
                log_prob_micro_batch_tokens=run.sequence_tokens,
            )


def _rollouts(run: Subject, cluster: Cluster) -> Iterator[Rollout]:
    dies, experts = cluster.nodes * cluster.dies_per_node, run.model.experts
    hardware = run.config.node_hardware if run.on_npu else None
    for tensor in ENGINE_SIZES:
        heads, groups = run.model.heads, run.model.key_heads
        if dies % tensor or heads % tensor or (groups % tensor and tensor % groups):
            continue
        engines = dies // tensor
        # Engines that share no experts need not step together.
        alone = run.config.cluster.device == CUDA or not experts
        counts = [engines] if alone else _divisors(engines)
        instances = [
            n
            for n in counts
            if experts % (dies // n) == 0 and (not experts or exchanged_dies(dies // n, hardware) is None)
        ]
        if instances:
            yield dataclasses.replace(run.config.rollout, tensor_parallel=tensor, instances=instances[0])


def _recompute(run: Subject, layers: list[int]) -> Recompute | None:
    recompute = run.config.actor.recompute
    if recompute is None or recompute.method is None:
        return recompute
    return dataclasses.replace(recompute, layers=max(layers) if recompute.method == "block" else 1)


def _stage_lists(layers: int, stages: int) -> list[list[int]]:
    """Stages as even as verl can express: all but the first and the last have the same number of layers."""
    if stages == 1:
        return [[layers]]
    out = []
    for middle in {layers // stages, -(-layers // stages)}:
        rest = layers - middle * (stages - 2)
        if rest >= 2:
            out.append([rest // 2, *[middle] * (stages - 2), rest - rest // 2])
    return out


def _most_experts(experts: int, dies: int) -> int:
    return max(size for size in _divisors(dies) if experts % size == 0)


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
