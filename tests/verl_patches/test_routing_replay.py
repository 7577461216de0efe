# SPDX-License-Identifier: Apache-2.0
"""The choices of experts stay with their answers through everything that verl does with a batch."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from verl.protocol import DataProto, pad_dataproto_to_divisor, unpad_dataproto

from verl_patches.routing_replay import COLUMN, choices_in, column_of

LENGTHS = (5, 2, 7, 7, 1, 3)


def batch() -> DataProto:
    """Answers by number, each with choices that are all its number; some of one length."""
    data = DataProto.from_dict(tensors={"number": torch.arange(len(LENGTHS))}, meta_info={"step": 1})
    choices = (np.full((length, 3, 2), number, np.uint8) for number, length in enumerate(LENGTHS))
    data.non_tensor_batch[COLUMN] = column_of(choices)
    return data


def require_matched(data: DataProto) -> None:
    found = choices_in(data.non_tensor_batch[COLUMN])
    assert len(found) == len(data)
    for number, choices in zip(data.batch["number"].tolist(), found, strict=True):
        assert choices.dtype == np.uint8 and choices.shape == (LENGTHS[number], 3, 2)
        assert (choices == number).all()


def test_answers_of_one_length_are_still_one_object_each() -> None:
    data = batch()
    assert data.non_tensor_batch[COLUMN].shape == (len(LENGTHS),)
    assert data[2:4].non_tensor_batch[COLUMN].shape == (2,)


def test_what_the_driver_does_with_a_batch() -> None:
    prompts = DataProto.from_dict(tensors={"prompt": torch.arange(len(LENGTHS))})
    data = prompts.union(batch())
    require_matched(data)
    data.reorder(torch.tensor([3, 0, 5, 1, 4, 2]))
    require_matched(data)
    require_matched(data.repeat(2, interleave=True))
    require_matched(data.select_idxs([4, 1]))
    require_matched(data.select(batch_keys=["number"]))
    for part in (*data.chunk(3), *data.split(4)):
        require_matched(part)
    require_matched(DataProto.concat(data.chunk(2)))
    padded, more = pad_dataproto_to_divisor(data, 4)
    require_matched(padded)
    require_matched(unpad_dataproto(padded, more))


def test_what_the_actor_does_with_it() -> None:
    mini_batches = list(batch().make_iterator(mini_batch_size=2, epochs=2, seed=3, dataloader_kwargs={"shuffle": True}))
    assert len(mini_batches) == 6
    for data in mini_batches:
        require_matched(data)


@pytest.fixture
def ray_store() -> Iterator[None]:
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


@pytest.mark.slow
def test_with_ray_the_batch_holds_references(ray_store: None) -> None:
    import ray

    large = np.arange(2_000_000, dtype=np.uint8).reshape(-1, 10, 2)
    data = DataProto.from_dict(tensors={"number": torch.zeros(2)})
    data.non_tensor_batch[COLUMN] = column_of([large, large[:3]])

    @ray.remote
    def shapes(data: DataProto) -> list[tuple[int, ...]]:
        assert len(pickle.dumps(data.batch)) < 10_000
        found = choices_in(data.non_tensor_batch[COLUMN])
        assert (found[0] == large).all()
        return [one.shape for one in found]

    assert ray.get(shapes.remote(data)) == [large.shape, large[:3].shape]
    assert all(isinstance(kept._held, ray.ObjectRef) for kept in data.non_tensor_batch[COLUMN])
