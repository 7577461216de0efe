# SPDX-License-Identifier: Apache-2.0
"""Saving, loading, pickling and copying tensors that live on npu."""

import copy
import io
import pickle

import pytest
import torch


@pytest.fixture
def state():
    base = torch.arange(12.0, device="npu:1")
    return {"base": base, "view": base.view(3, 4).t(), "half": torch.ones(2, 3, dtype=torch.bfloat16, device="npu:0")}


def equal(loaded: dict, state: dict) -> bool:
    return all(torch.equal(loaded[key].cpu(), value.cpu()) for key, value in state.items())


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("target", [None, "cpu", "npu:2", {"npu:1": "npu:3", "npu:0": "cpu"}])
def test_save_and_load(state, target, new_format):
    file = io.BytesIO()
    torch.save(state, file, _use_new_zipfile_serialization=new_format)
    file.seek(0)
    loaded = torch.load(file, map_location=target, weights_only=True)
    assert equal(loaded, state)
    expected = {None: "npu:1", "cpu": "cpu", "npu:2": "npu:2"}.get(
        target if not isinstance(target, dict) else 0, "npu:3"
    )
    assert loaded["base"].device == torch.device(expected)
    assert loaded["view"].untyped_storage().data_ptr() == loaded["base"].untyped_storage().data_ptr()


def test_pickle_and_copy(state):
    for twin in (pickle.loads(pickle.dumps(state)), copy.deepcopy(state)):
        assert equal(twin, state)
        assert twin["base"].device == torch.device("npu:1")
        twin["base"].zero_()
        assert state["base"].sum() == 66
    assert twin["view"].sum() == 0  # deepcopy keeps what shared a storage together, as on the CPU


def test_storages():
    storage = torch.arange(4.0, device="npu:1").untyped_storage()
    assert storage.device == torch.device("npu:1") and storage.nbytes() == 16
    assert bytes(storage.cpu()) == torch.arange(4.0).numpy().tobytes()
    assert torch.equal(torch.empty(0, device="npu:1").set_(storage, 1, (2,), (2,)).cpu(), torch.tensor([1.0, 3.0]))
    assert torch.ones(2).untyped_storage().npu().device.type == "npu"


def test_numpy_and_printing():
    tensor = torch.arange(3.0, device="npu:2")
    assert tensor.cpu().numpy().tolist() == tensor.tolist() == [0, 1, 2]
    with pytest.raises(TypeError, match="npu:2"):
        tensor.numpy()
    assert repr(tensor) == "tensor([0., 1., 2.], device='npu:2')"
