# SPDX-License-Identifier: Apache-2.0
"""What lies on a die, by what it is: the buffers of Megatron-core's data parallelism, optimizer states, weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from recipe.rehearse.step import Workers

# What is on a die beside all that has a name, in a step and before it.
REST, BEING_BUILT = "activations", "what is being built"


class Contents:
    """Sums the device memory of tensors by kind, and knows none before `of` is told whose.

    A tensor counts with all the memory that it is a view of, once, for the first kind that has it.
    """

    def __init__(self) -> None:
        self._kinds: dict[str, Callable[[], Iterable[torch.Tensor]]] = {}

    def of(self, workers: Workers) -> None:
        """From now on these workers' tensors are counted."""
        actor, reference = workers.actor, workers.reference
        self._kinds = {
            "actor weights": lambda: _buffers(getattr(actor, "actor_module", ()), "param_data"),
            "gradients": lambda: _buffers(getattr(actor, "actor_module", ()), "grad_data"),
            "optimizer": lambda: _optimizer(getattr(actor, "actor_optimizer", None)),
            "rollout weights": lambda: _engine_weights(getattr(actor, "rollout", None)),
            "KV cache": lambda: _engine_cache(getattr(actor, "rollout", None)),
            "reference weights": lambda: _parameters(getattr(reference, "ref_module", ())),
        }

    def bytes_by_kind(self) -> Mapping[str, int]:
        """Bytes on the device by kind; kinds that have none are left out."""
        seen: set[int] = set()
        sizes = {}
        for kind, tensors in self._kinds.items():
            size = 0
            for tensor in tensors():
                storage = tensor.untyped_storage()
                if storage.device.type == "npu" and storage._cdata not in seen:
                    seen.add(storage._cdata)
                    size += storage.nbytes()
            if size:
                sizes[kind] = size
        return sizes


def _buffers(modules: Iterable[Any], name: str) -> Iterator[torch.Tensor]:
    for module in modules:
        for buffer in (*module.buffers, *module.expert_parallel_buffers):
            data = getattr(buffer, name)
            if data is not None:
                yield data


def _parameters(modules: Iterable[torch.nn.Module]) -> Iterator[torch.Tensor]:
    return (parameter.data for module in modules for parameter in module.parameters())


def _engine_weights(rollout: Any) -> Iterator[torch.Tensor]:
    """Parameters of the engine's model, and what was derived from them."""
    if rollout is None:
        return
    for module in rollout._model.modules():
        yield from (value.data for value in vars(module).values() if isinstance(value, torch.Tensor))
        yield from (value.data for value in module._parameters.values() if value is not None)


def _engine_cache(rollout: Any) -> Iterator[torch.Tensor]:
    if rollout is None:
        return
    for cache in rollout._engine.model_executor.driver_worker.worker.model_runner.kv_caches:
        yield from ([cache] if isinstance(cache, torch.Tensor) else cache)


def _optimizer(optimizer: Any) -> Iterator[torch.Tensor]:
    """Of each of the chained optimizers, the float32 parameters and the moments, wherever they are."""
    if optimizer is None:
        return
    for part in getattr(optimizer, "chained_optimizers", [optimizer]):
        if part.optimizer is None:
            continue
        for group in part.optimizer.param_groups:
            yield from (parameter.data for parameter in group["params"])
        for states in part.optimizer.state.values():
            yield from (value for value in states.values() if isinstance(value, torch.Tensor))


def at_peak(before: Mapping[str, int], after: Mapping[str, int], peak: int, rest: str = REST) -> dict[str, int]:
    """What there was at the fullest moment between two readings, largest first.

    What is moved in or out between two readings is there at the fullest moment between them, so of each kind the larger
    reading counts; what has no name is the `rest` of `peak`.
    """
    kinds = {kind: max(before.get(kind, 0), after.get(kind, 0)) for kind in (*before, *after)}
    kinds[rest] = max(0, peak - sum(kinds.values()))
    return dict(sorted(((kind, size) for kind, size in kinds.items() if size), key=lambda pair: -pair[1]))
