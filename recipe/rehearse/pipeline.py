# SPDX-License-Identifier: Apache-2.0
"""What the stages of a pipeline tell each other before the actor's weights go to the rollout.

verl asks every stage for the names of its parameters, and hands each tensor from its stage to all others. In a world of
one the other stages are not there: each stage's description is taken beforehand, where the stage itself was built, and
stands for it here. The messages are sent all the same, with what the real ones hold, so that they are counted.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state

from recipe.files import write_atomically


@dataclass(frozen=True)
class Sent:
    """A tensor of a stage, as verl's `per_tensor_generator` comes to it: model chunk, place and name there, and what
    the other stages are told of it."""

    chunk: int
    index: int
    name: str
    shape: tuple[int, ...]
    dtype: str
    tensor_parallel: bool | None
    partition_dim: int | None

    @classmethod
    def of(cls, chunk: int, index: int, name: str, tensor: torch.Tensor) -> Sent:
        return cls(
            chunk,
            index,
            name,
            tuple(tensor.shape),
            str(tensor.dtype).removeprefix("torch."),
            getattr(tensor, "tensor_model_parallel", None),
            getattr(tensor, "partition_dim", None),
        )


def describe(actor_module: Sequence[Any]) -> list[Sent]:
    """The tensors of this stage, in the order of verl 0.6.1's `per_tensor_generator`: parameters, and then what only
    the state of the model has (the router's bias)."""
    from verl.utils.megatron_utils import unwrap_model

    described = []
    for chunk, wrapped in enumerate(actor_module):
        model = unwrap_model(wrapped)
        index, known = -1, set()
        for index, (name, parameter) in enumerate(model.named_parameters()):
            known.add(name)
            described.append(Sent.of(chunk, index, name, parameter))
        for name, tensor in model.state_dict().items():
            if name not in known and "_extra_state" not in name:
                described.append(Sent.of(chunk, index, name, tensor))
    return described


def write_description(described: Sequence[Sent], path: Path) -> None:
    """Keep what `describe` gave."""
    write_atomically(path, json.dumps([dataclasses.asdict(sent) for sent in described]))


def read_description(path: Path) -> list[Sent]:
    """What was kept."""
    return [Sent(**{**one, "shape": tuple(one["shape"])}) for one in json.loads(path.read_text(encoding="utf-8"))]


def steer_pipeline(stages: Sequence[Sequence[Sent]]) -> None:
    """From now on the other stages' parts in a weight sync are those of their descriptions.

    Args:
        stages: by stage, what `describe` gives there.
    """
    from verl.utils import megatron_utils
    from verl.workers import megatron_workers

    generate, sync = megatron_utils.per_tensor_generator, _Sync(stages)

    def per_tensor_generator(
        actor_module: Any, model_config: Any, converter: Any, transformer_config: Any, *args: Any, **kwargs: Any
    ) -> Iterator[Any]:
        sync.begin(transformer_config)
        tensors = generate(actor_module, model_config, converter, transformer_config, *args, **kwargs)
        gather = dist.all_gather_object
        dist.all_gather_object = sync.gathering(gather)
        try:
            first = next(tensors, None)
        finally:
            dist.all_gather_object = gather
        if first is not None:
            yield first
            del first  # what was received is held no longer than where nobody looks on
            yield from tensors

    megatron_workers.per_tensor_generator = megatron_utils.per_tensor_generator = per_tensor_generator
    megatron_utils.broadcast_str_from_megatron_pp = sync.broadcast_name
    megatron_utils.broadcast_from_megatron_pp = sync.broadcast_tensor


class _Sync:
    """One weight sync: which tensor of which stage is next."""

    def __init__(self, stages: Sequence[Sequence[Sent]]) -> None:
        self._stages = stages
        self._coming: Iterator[tuple[int, Sent]] = iter(())
        self._stage, self._sent = 0, Sent(0, 0, "", (), "float32", None, None)
        self._transformer: Any = None

    def begin(self, transformer_config: Any) -> None:
        self._transformer = transformer_config
        self._coming = ((number, sent) for number, stage in enumerate(self._stages) for sent in stage)

    def gathering(self, gather: Any) -> Any:
        """`all_gather_object` that gives what every stage has, where the stages' names are gathered."""

        def all_gather_object(object_list: list[Any], obj: Any, group: Any = None) -> None:
            if not isinstance(obj, list):
                gather(object_list, obj, group=group)
                return
            named = [
                [(number, sent.chunk, sent.index, sent.name) for sent in stage]
                for number, stage in enumerate(self._stages)
            ]
            # What every stage sends is as long as the longest.
            gather(object_list, max(named, key=lambda names: len(pickle.dumps(names))), group=group)
            object_list[:] = named

        return all_gather_object

    def broadcast_name(self, name: str | None) -> str:
        """In place of verl's `broadcast_str_from_megatron_pp`."""
        from verl.utils.megatron_utils import normalize_model_name

        self._stage, self._sent = next(self._coming)
        known: str = normalize_model_name(self._sent.name, self._stage, self._sent.chunk, self._transformer)
        if name is not None and name != known:
            raise RuntimeError(f"this stage sends {name}, its description has {known} there")
        self._gather(known)
        names = [known, *[None] * (parallel_state.get_pipeline_model_parallel_world_size() - 1)]
        dist.broadcast_object_list(names, src=self._source, group=_group())
        return known

    def broadcast_tensor(self, tensor: torch.Tensor | None) -> torch.Tensor:
        """In place of verl's `broadcast_from_megatron_pp`."""
        sent = self._sent
        dtype = getattr(torch, sent.dtype)
        self._gather((torch.Size(sent.shape), dtype, sent.tensor_parallel, sent.partition_dim))
        if tensor is None:
            # Zeros, as nothing comes: what was in the memory before may be no number.
            tensor = torch.zeros(sent.shape, dtype=dtype, device=torch.npu.current_device())
            if sent.tensor_parallel is not None:
                tensor.tensor_model_parallel = sent.tensor_parallel
            if sent.partition_dim is not None:
                tensor.partition_dim = sent.partition_dim
        dist.broadcast(tensor, src=self._source, group=_group())
        return tensor

    @property
    def _source(self) -> int:
        return int(dist.get_global_rank(_group(), self._stage))

    def _gather(self, value: Any) -> None:
        """As the source does it; what is gathered is as long as the longest, which is the source's."""
        everyone = [None] * parallel_state.get_pipeline_model_parallel_world_size()
        dist.all_gather_object(everyone, value, group=_group())


def _group() -> Any:
    return parallel_state.get_pipeline_model_parallel_group()
