# SPDX-License-Identifier: Apache-2.0
"""verl's own way to write batches down as arrays, which every run asks for."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from verl import DataProto

from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.paths import REPO

METHOD = "VERL_DATAPROTO_SERIALIZATION_METHOD"
RUN_FILES = sorted((REPO / "configs").glob("*.toml"))


@pytest.mark.parametrize("file", RUN_FILES, ids=lambda file: file.stem)
def test_every_run_asks_for_arrays(file: Path) -> None:
    assert derive_run(load(file)).environment[METHOD] == "numpy"


def test_a_batch_arrives_as_it_was_sent_and_nothing_is_unpickled_by_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METHOD, "numpy")
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch.load"))
    torch.manual_seed(1)
    tensors = {
        "ids": torch.randint(0, 1000, (4, 6)),
        "part": torch.randint(0, 1000, (4, 12))[:, ::2],
        "log_probs": torch.randn(4, 6),
        "half": torch.randn(4, 6, dtype=torch.bfloat16),
        "mask": torch.rand(4, 6) > 0.5,
        "special": torch.tensor([[float("nan")], [-0.0], [float("inf")], [1e-45]]),
    }
    sent = DataProto.from_dict(tensors, {"uid": np.array(["a", "b", "c", "d"], dtype=object)}, {"step": 3})
    arrived = copy.deepcopy(sent)  # by the two methods that pickle calls
    assert arrived.batch.batch_size == sent.batch.batch_size and set(arrived.batch.keys()) == set(tensors)
    for name, tensor in tensors.items():
        one = arrived.batch[name]
        assert (one.dtype, one.shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(one.contiguous().view(torch.uint8), tensor.contiguous().view(torch.uint8)), name
        one.zero_()  # a worker may write into it
    assert list(arrived.non_tensor_batch["uid"]) == ["a", "b", "c", "d"] and arrived.meta_info == {"step": 3}


def test_a_batch_without_tensors_arrives_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METHOD, "numpy")
    arrived = copy.deepcopy(DataProto(meta_info={"metrics": [1.0]}))
    assert arrived.batch is None and arrived.meta_info == {"metrics": [1.0]}
