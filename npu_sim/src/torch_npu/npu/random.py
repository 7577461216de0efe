# SPDX-License-Identifier: Apache-2.0
"""``torch.npu.random``: one generator per device, a Mersenne Twister as on the CPU. States are CPU uint8 tensors."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch_npu import _sim
from torch_npu.npu.devices import index_of


class _DefaultGenerators(Sequence[torch.Generator]):
    """The generator of every visible device; looked up at use, because devices become visible late (Ray)."""

    def __len__(self) -> int:
        return _sim.device_count()

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        if not -len(self) <= index < len(self):
            raise IndexError(f"npu {index} of {len(self)} has no generator")
        return _sim.default_generator(index % len(self))


default_generators = _DefaultGenerators()


def _generator(device: Any = None) -> torch.Generator:
    return default_generators[index_of(device)]


def get_rng_state(device: Any = "npu") -> torch.Tensor:
    return _generator(device).get_state()


def set_rng_state(new_state: torch.Tensor, device: Any = "npu") -> None:
    _generator(device).set_state(new_state.cpu())


def get_rng_state_all() -> list[torch.Tensor]:
    return [generator.get_state() for generator in default_generators]


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    for index, state in enumerate(new_states):
        set_rng_state(state, index)


def manual_seed(seed: int) -> None:
    _generator().manual_seed(int(seed))


def manual_seed_all(seed: int) -> None:
    for generator in default_generators:
        generator.manual_seed(int(seed))


def seed() -> int:
    """A random seed for the current device; returns it."""
    return _generator().seed()


def seed_all() -> None:
    manual_seed_all(seed())


def initial_seed() -> int:
    return _generator().initial_seed()
