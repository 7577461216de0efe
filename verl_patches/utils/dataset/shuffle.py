# SPDX-License-Identifier: Apache-2.0
"""The order of the training problems, with its place in the checkpoint."""

from __future__ import annotations

from collections.abc import Sized
from typing import Any

import torch
from torchdata.stateful_dataloader.sampler import RandomSampler
from verl.experimental.dataset.sampler import AbstractSampler


class ResumableShuffle(RandomSampler, AbstractSampler):
    """`data.sampler.class_name`: a new permutation of the problems for every epoch, from `data.seed`.

    verl's own sampler gives the same, but a data loader that is resumed in its second epoch or later starts it from the
    seed again: it repeats the order of the first. This one's generator is part of the data loader's state.
    """

    def __init__(self, data_source: Sized, data_config: Any) -> None:
        generator = torch.Generator().manual_seed(int(data_config.seed))
        RandomSampler.__init__(self, data_source, generator=generator)
