# SPDX-License-Identifier: Apache-2.0
"""Which devices there are, and that tensors on different ones do not mix."""

import threading

import pytest
import torch

CPU, ONE = torch.ones(3), torch.ones(3, device="npu:0")


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda other: ONE + other, id="add"),
        pytest.param(lambda other: other + ONE, id="add_reversed"),
        pytest.param(lambda other: torch.cat([ONE, other]), id="cat"),
        pytest.param(lambda other: torch.dot(ONE, other), id="dot"),
        pytest.param(lambda other: torch.where(ONE > 0, ONE, other), id="where"),
        pytest.param(lambda other: ONE.clone().add_(other), id="in_place"),
        pytest.param(lambda other: torch.add(ONE, ONE, out=other), id="out"),
        pytest.param(lambda other: torch._foreach_add([ONE, ONE], [ONE, other]), id="foreach"),
        pytest.param(lambda other: ONE.clone().index_put_((torch.tensor([0, 1, 2]),), other), id="index_put_values"),
        pytest.param(lambda other: torch.nn.functional.linear(ONE[None], other[None]), id="linear"),
        pytest.param(lambda other: ONE.clone().set_(other), id="set_"),
    ],
)
@pytest.mark.parametrize("other", ["cpu", "npu:1"])
def test_two_devices_are_refused(call, other):
    with pytest.raises(RuntimeError, match=r"same device|expected a storage on npu:0"):
        call(torch.ones(3, device=other))


def test_the_error_names_operator_and_devices():
    with pytest.raises(RuntimeError, match=r"npu:0 and cpu!.*aten::add\.Tensor"):
        _ = ONE + CPU
    with pytest.raises(RuntimeError, match=r"npu:0 and npu:1!.*aten::mul\.Tensor"):
        _ = ONE * ONE.to("npu:1")


def test_what_torch_allows_on_every_device():
    assert (ONE + torch.tensor(2.0)).tolist() == [3, 3, 3]  # a 0-dim CPU tensor is a scalar
    assert ONE[torch.tensor([0, 2])].tolist() == [1, 1]  # indices may stay on the CPU
    filled = ONE.clone()
    filled[torch.tensor([1])] = torch.tensor([7.0], device="npu:0")
    assert filled.tolist() == [1, 7, 1]


def test_copies_cross_devices():
    moved = torch.arange(4.0).to("npu:2").to("npu:3")
    assert moved.device == torch.device("npu:3")
    target = torch.zeros(4, device="npu:1")
    target.copy_(moved)
    target[1:3].copy_(torch.tensor([8.0, 9.0]))
    assert target.cpu().tolist() == [0, 8, 9, 3]
    transposed = torch.arange(6.0).view(2, 3).t().to("npu:4")
    assert transposed.tolist() == torch.arange(6.0).view(2, 3).t().tolist()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: torch.fft.fft(ONE), "aten::_fft_r2c"),
        (lambda: torch.stft(torch.ones(64, device="npu"), 16, return_complex=True), "aten::_fft_r2c"),
        (lambda: ONE.to_sparse(), "aten::_to_sparse"),
        (lambda: torch.sparse_coo_tensor(ONE[None, :1].long(), ONE[:1], (3,)), "aten::_sparse"),
        (lambda: torch.quantize_per_tensor(ONE, 1.0, 0, torch.qint8), "aten::quantize_per_tensor"),
        (lambda: torch.empty(2, device="npu", layout=torch.sparse_coo), "aten::empty"),
        (lambda: torch.ops.aten._scaled_dot_product_flash_attention(*[torch.ones(1, 1, 4, 8, device="npu")] * 3),
         "aten::_scaled_dot_product_flash_attention"),
        (lambda: torch.ops.aten._thnn_fused_lstm_cell(*[torch.ones(1, 8, device="npu")] * 3), "_thnn_fused_lstm_cell"),
    ],
)  # fmt: skip
def test_what_cannot_run_raises_with_its_name(call, name):
    with pytest.raises(NotImplementedError, match=name):
        call()


def test_an_operator_of_another_library_without_npu_kernel_raises_with_its_name():
    with torch.library._scoped_library("npu_sim_test", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CPU")
        assert torch.ops.npu_sim_test.twice(CPU).tolist() == [2, 2, 2]
        with pytest.raises(NotImplementedError, match="npu_sim_test::twice has no kernel for the simulated NPU"):
            torch.ops.npu_sim_test.twice(ONE)
        library.impl("twice", lambda x: x + x, "PrivateUse1")
        assert torch.ops.npu_sim_test.twice(ONE).tolist() == [2, 2, 2]


def test_a_device_that_does_not_exist_is_refused():
    with pytest.raises(RuntimeError, match="invalid device index 8: this process sees 8"):
        torch.ones(1, device="npu:8")
    with pytest.raises(RuntimeError, match="invalid device index 9"):
        torch.npu.set_device(9)


def test_the_current_device_belongs_to_the_thread():
    seen = []
    with torch.npu.device(3):
        assert torch.npu.current_device() == 3
        assert torch.ones(1, device="npu").device.index == 3
        thread = threading.Thread(target=lambda: seen.append(torch.npu.current_device()))
        thread.start()
        thread.join()
    assert torch.npu.current_device() == 0
    assert seen == [0]


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [(None, None, "8 0"), (None, "3", "3 0"), ("5,2", None, "2 5"), ("1", "2", "1 1"), ("", None, "0")],
)
def test_visible_devices(run_python, visible, count, expected):
    code = (
        "import torch_npu; n = torch_npu.npu.device_count();"
        "print(*([n, torch_npu._sim.physical_device(0)] if n else [n]), end='');"
        "assert torch_npu.npu.is_available() == (n > 0)"
    )
    done = run_python(code, ASCEND_RT_VISIBLE_DEVICES=visible, NPU_SIM_DEVICES=count)
    assert done.stdout == expected, done.stderr


def test_devices_may_be_chosen_after_import_and_mistakes_are_explained(run_python):
    code = """
import os, torch_npu
os.environ["ASCEND_RT_VISIBLE_DEVICES"] = "7"
print(torch_npu.npu.device_count(), end="")
"""
    assert run_python(code, ASCEND_RT_VISIBLE_DEVICES=None).stdout == "1"
    done = run_python("import torch_npu; torch_npu.npu.init()", ASCEND_RT_VISIBLE_DEVICES="0,9")
    assert done.returncode != 0
    assert "names device 9, but only 8 devices are simulated" in done.stderr
    done = run_python("import torch_npu; torch_npu.npu.init()", NPU_SIM_HBM="much")
    assert "NPU_SIM_HBM is 'much', expected a positive size" in done.stderr


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("256MiB", 256 << 20), ("64 GiB", 64 << 30), ("1.5K", 1500), ("2g", 2_000_000_000), ("1TiB", 1 << 40)],
)
def test_sizes(text, size):
    import torch_npu

    assert torch_npu._sim.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "-1", "0", "12X", "1 2", "nan", "1e99"])
def test_sizes_that_are_none(text):
    import torch_npu

    with pytest.raises(RuntimeError, match="expected a positive size"):
        torch_npu._sim.parse_bytes(text)


def test_what_others_than_torch_hold_is_not_torch_s(run_python):
    code = """
import torch, torch_npu
free, total = torch.npu.mem_get_info()
print(free >> 20, total >> 20)
held = torch.empty(40 << 20, dtype=torch.uint8, device="npu")
print(torch.npu.mem_get_info()[0] >> 20, torch.npu.memory_allocated() >> 20)
try:
    torch.empty(1, dtype=torch.uint8, device="npu")
except torch.OutOfMemoryError as error:
    print(error)
"""
    done = run_python(code, NPU_SIM_HBM="64MiB", NPU_SIM_OUTSIDE="24MiB")
    first, second, third = done.stdout.splitlines()
    assert (first, second) == ("40 64", "0 40"), done.stderr
    assert "64.00 MiB total capacity" in third and "24.00 MiB outside torch" in third
    assert third.endswith("(1 bytes wanted, 0 bytes free)")
    assert run_python(code, NPU_SIM_HBM="64MiB", NPU_SIM_OUTSIDE="0").stdout.startswith("64 64\n24 40\n")
    done = run_python("import torch_npu; torch_npu.npu.init()", NPU_SIM_OUTSIDE="much")
    assert "NPU_SIM_OUTSIDE is 'much', expected a positive size" in done.stderr
