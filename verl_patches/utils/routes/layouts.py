# SPDX-License-Identifier: Apache-2.0
"""Which die is what: in the actor (Megatron-core) and in the rollout (vLLM).

Megatron-core 0.12.1 numbers its ranks in the order tp-cp-ep-dp-pp (megatron/core/parallel_state.py, `RankGenerator`),
once for the experts, whose tensor parallel size is 1 here, and once for everything else; a pipeline stage is the same
run of ranks in both. vLLM 0.9.1 numbers them instance, data, tensor (vllm/distributed/parallel_state.py,
`initialize_model_parallel`), and the experts of an instance go over all of its dies.
"""

# NPU-ADAPTATION: a die is sent only the weights that it lacks: which die is what

from __future__ import annotations

from dataclasses import dataclass


class LayoutError(ValueError):
    """Sizes that do not go together."""


@dataclass(frozen=True)
class ActorLayout:
    """The actor's parallel sizes; `stage_layers`: the layers of each pipeline stage."""

    dies: int
    tensor: int
    expert: int
    stage_layers: tuple[int, ...]

    def __post_init__(self) -> None:
        if min(self.dies, self.tensor, self.expert, len(self.stage_layers), *self.stage_layers) < 1:
            raise LayoutError(f"{self}: every size must be 1 or more")
        for what, size in (("tensor", self.tensor), ("expert", self.expert)):
            if self.dies % (size * self.stages):
                raise LayoutError(
                    f"{self.dies} dies are not a multiple of {self.stages} stages x {what} parallel {size}"
                )

    @property
    def stages(self) -> int:
        return len(self.stage_layers)

    @property
    def stage_dies(self) -> int:
        return self.dies // self.stages

    @property
    def data(self) -> int:
        return self.stage_dies // self.tensor

    @property
    def expert_data(self) -> int:
        """Dies of a stage that hold the same experts."""
        return self.stage_dies // self.expert

    def layers(self, stage: int) -> range:
        """The numbers of a stage's layers, from 0."""
        first = sum(self.stage_layers[:stage])
        return range(first, first + self.stage_layers[stage])

    def stage(self, rank: int) -> int:
        return rank // self.stage_dies

    def tensor_rank(self, rank: int) -> int:
        return rank % self.tensor

    def data_rank(self, rank: int) -> int:
        return rank % self.stage_dies // self.tensor

    def expert_rank(self, rank: int) -> int:
        return rank % self.stage_dies % self.expert

    def member(self, stage: int, data_rank: int, tensor_rank: int) -> int:
        """The rank at these coordinates."""
        return stage * self.stage_dies + data_rank * self.tensor + tensor_rank

    def model_group(self, data_rank: int) -> tuple[int, ...]:
        """The dies that hold one whole copy of everything but the routed experts: Megatron's model parallel group."""
        return tuple(
            self.member(stage, data_rank, tensor_rank)
            for stage in range(self.stages)
            for tensor_rank in range(self.tensor)
        )

    def expert_holders(self, stage: int, expert_rank: int) -> range:
        """The dies of a stage that hold the experts of one expert parallel rank."""
        first = stage * self.stage_dies
        return range(first + expert_rank, first + self.stage_dies, self.expert)

    def experts(self, expert_rank: int, experts: int) -> range:
        """The numbers of an expert parallel rank's experts, of `experts` in all."""
        each = experts // self.expert
        return range(expert_rank * each, (expert_rank + 1) * each)


@dataclass(frozen=True)
class RolloutLayout:
    """The rollout's parallel sizes.

    `replicated_shared`: the shared experts are whole on every die, as with vLLM-Ascend's `enable_multistream_moe`.
    """

    dies: int
    tensor: int
    instances: int
    replicated_shared: bool = False

    def __post_init__(self) -> None:
        if min(self.dies, self.tensor, self.instances) < 1:
            raise LayoutError(f"{self}: every size must be 1 or more")
        if self.dies % (self.instances * self.tensor):
            raise LayoutError(
                f"{self.dies} dies are not a multiple of {self.instances} instances x tensor parallel {self.tensor}"
            )

    @property
    def expert(self) -> int:
        """Expert parallel size: the dies of an instance."""
        return self.dies // self.instances

    def tensor_rank(self, rank: int) -> int:
        return rank % self.tensor

    def expert_rank(self, rank: int) -> int:
        return rank % self.expert

    def experts(self, expert_rank: int, experts: int) -> range:
        """The numbers of an expert parallel rank's experts; the last rank has the remainder of the division
        (vllm/model_executor/layers/fused_moe/layer.py, `determine_expert_map`)."""
        each = experts // self.expert
        first = expert_rank * each
        return range(first, experts if expert_rank == self.expert - 1 else first + each)

    def expert_dies(self, expert: int, experts: int) -> range:
        """The dies that run an expert, one of each instance."""
        expert_rank = min(expert // (experts // self.expert), self.expert - 1)
        return range(expert_rank, self.dies, self.expert)


def check_pair(actor: ActorLayout, rollout: RolloutLayout, experts: int) -> None:
    """Raises LayoutError for layouts of different worlds, or experts that they cannot spread."""
    if actor.dies != rollout.dies:
        raise LayoutError(f"the actor is laid out on {actor.dies} dies, the rollout on {rollout.dies}")
    if experts % actor.expert:
        raise LayoutError(f"{experts} experts are not a multiple of the actor's expert parallel {actor.expert}")
    if rollout.expert > experts:
        raise LayoutError(f"an instance of the rollout has {rollout.expert} dies, more than the {experts} experts")
