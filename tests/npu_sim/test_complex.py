# SPDX-License-Identifier: Apache-2.0
"""Lazily conjugated and negated tensors show the same numbers on the device as on the CPU, on every way in and out."""

import copy
import io
import pickle

import pytest
import torch

VALUES = torch.tensor([1 + 2j, -3 + 0.5j, 0 - 1j], dtype=torch.complex64)


def lazy(device: str) -> dict[str, torch.Tensor]:
    """A tensor for each combination of bits; the same values on every device."""
    x = VALUES.to(device, copy=True)
    return {
        "conjugated": x.conj(),
        "negated": torch._neg_view(x),
        "both": torch._neg_view(x.conj()),
        "imaginary": x.conj().imag,
        "real": torch._neg_view(x).real,
        "strided": x.conj()[::2],
        "scalar": x.conj()[0],
        "zero": torch.zeros(0, dtype=torch.complex64, device=device).conj(),
    }


KINDS = list(lazy("cpu"))


@pytest.fixture(params=KINDS)
def pair(request) -> tuple[torch.Tensor, torch.Tensor]:
    """The same lazy tensor on the CPU and on the device."""
    on_cpu, on_npu = lazy("cpu")[request.param], lazy("npu")[request.param]
    assert on_npu.device.type == "npu"
    assert (on_npu.is_conj(), on_npu.is_neg()) == (on_cpu.is_conj(), on_cpu.is_neg()) != (False, False)
    return on_cpu, on_npu


def same(moved: torch.Tensor, on_cpu: torch.Tensor) -> bool:
    return moved.device.type == "npu" and moved.dtype == on_cpu.dtype and moved.tolist() == on_cpu.tolist()


WAYS = {
    "resolve": lambda x: x.resolve_conj().resolve_neg(),
    "clone": torch.clone,
    "contiguous": lambda x: x.contiguous(),
    "empty_like": lambda x: torch.empty_like(x).copy_(x),
    "convert": lambda x: x.to(torch.complex128),
    "conj": torch.conj,
    "conj_physical": torch.conj_physical,
    "conj_physical_": lambda x: x.clone().conj_physical_(),
    "neg": torch.neg,
    "add": lambda x: x + x,
    "matmul": lambda x: torch.outer(x.reshape(-1), x.reshape(-1)),
    "vdot": lambda x: torch.vdot(x.reshape(-1), x.reshape(-1)),
    "sum": torch.sum,
    "cat": lambda x: torch.cat([x.reshape(-1), x.reshape(-1)]),
    "stack": lambda x: torch.stack([x, x]),
    "where": lambda x: torch.where(x.abs() > 1.1, x, x * 2),
    "index": lambda x: x[..., None][..., [0, 0]],
    "view": lambda x: x.reshape(-1)[:1],
    "setitem": lambda x: torch.zeros_like(x.resolve_conj().resolve_neg()).copy_(x).fill_(2),
    "pow": lambda x: x**2,
}


@pytest.mark.parametrize("way", WAYS)
def test_operators_heed_the_bits(pair, way):
    on_cpu, on_npu = pair
    result, expected = WAYS[way](on_npu), WAYS[way](on_cpu)
    assert result.device.type == "npu"
    torch.testing.assert_close(result.cpu(), expected.resolve_conj().resolve_neg())


def test_writing_through_a_lazy_view_reaches_its_base():
    for device in ("cpu", "npu"):
        x = VALUES.to(device, copy=True)
        x.conj()[0] = 5 + 6j
        x.conj()[1:2].mul_(2j)
        torch._neg_view(x)[2] = 7
        x.conj().imag.add_(1)
        assert x.tolist() == [5 - 7j, 1 + 5j, -7 - 1j]


def test_copies_between_host_and_device(pair):
    on_cpu, on_npu = pair
    assert torch.equal(on_npu.cpu(), on_cpu)
    assert same(on_cpu.npu(), on_cpu) and same(on_npu.to("npu:1"), on_cpu)
    there = torch.empty_like(on_cpu.resolve_conj().resolve_neg(), device="npu")
    assert same(there.copy_(on_cpu), on_cpu) and same(there.copy_(on_npu), on_cpu)
    back = torch.empty_like(on_cpu.resolve_conj().resolve_neg())
    assert torch.equal(back.copy_(on_npu), on_cpu)


def test_copies_into_lazy_views():
    for source in ("cpu", "npu"):
        for destination in ("cpu", "npu"):
            x = torch.zeros(3, dtype=torch.complex64, device=destination)
            x.conj().copy_(VALUES.to(source))
            assert x.tolist() == VALUES.conj().tolist()
            torch._neg_view(x).copy_(VALUES.to(source).conj())
            assert x.tolist() == VALUES.conj().neg().tolist()


def test_out_arguments(pair):
    on_cpu, on_npu = pair
    out = torch.zeros(on_cpu.shape, dtype=on_cpu.dtype, device="npu")
    lazily = torch._neg_view(out)
    torch.add(on_npu, on_npu, out=lazily)
    assert same(lazily, on_cpu + on_cpu) and same(out, -(on_cpu + on_cpu))


def test_a_result_that_a_kernel_leaves_conjugated():
    a = torch.tensor([[2, 1j], [1, 3]], dtype=torch.complex64)
    lu, pivots = torch.linalg.lu_factor(a)
    expected = torch.linalg.lu_solve(lu, pivots, a, left=False, adjoint=True)
    assert expected.is_conj()
    out = torch.empty_like(a, device="npu")
    torch.linalg.lu_solve(lu.npu(), pivots.npu(), a.npu(), left=False, adjoint=True, out=out)
    torch.testing.assert_close(out.cpu(), expected)


def test_printing(pair):
    on_cpu, on_npu = pair
    end = "npu:0'"
    assert repr(on_npu).replace(f", device='{end}", "") == repr(on_cpu)
    assert f"{on_npu[..., None].sum():.1f}" == f"{on_cpu[..., None].sum():.1f}"


def test_saving(pair):
    on_cpu, on_npu = pair
    file = io.BytesIO()
    torch.save({"x": on_npu}, file)
    for location, device in ((None, "npu"), ("cpu", "cpu")):
        file.seek(0)
        loaded = torch.load(file, map_location=location, weights_only=True)["x"]
        assert loaded.device.type == device and loaded.tolist() == on_cpu.tolist()
    assert same(pickle.loads(pickle.dumps(on_npu)), on_cpu)
    assert same(copy.deepcopy(on_npu), on_cpu)


def test_data_swaps(pair):
    on_cpu, on_npu = pair
    x = torch.zeros(1, dtype=on_cpu.dtype, device="npu")
    x.data = on_npu
    assert same(x, on_cpu)
    x.data = on_cpu
    assert x.device.type == "cpu" and torch.equal(x, on_cpu)
    x.data = on_npu
    assert same(x + 0, on_cpu)


def test_pinned_memory(pair):
    on_cpu, _ = pair
    pinned = on_cpu.pin_memory()
    assert pinned.is_pinned() == bool(on_cpu.numel()) and torch.equal(pinned, on_cpu)
    assert same(pinned.to("npu", non_blocking=True), on_cpu)
    batch = next(iter(torch.utils.data.DataLoader([on_cpu] * 2, batch_size=2, pin_memory=True)))
    assert batch.tolist() == [on_cpu.tolist()] * 2


def test_the_hosts_view_of_a_lazy_tensor(pair):
    from torch_npu import _sim

    on_cpu, on_npu = pair
    assert torch.equal(_sim.as_cpu(on_npu), on_cpu)
    assert same(_sim.as_npu(_sim.as_cpu(on_npu)), on_cpu)


def test_reading_single_numbers():
    for on_cpu, on_npu in zip(lazy("cpu").values(), lazy("npu").values(), strict=True):
        if on_cpu.numel():
            assert on_npu.reshape(-1)[0].item() == on_cpu.reshape(-1)[0].item()
            assert bool(on_npu.reshape(-1)[0] == on_cpu.reshape(-1)[0])


@pytest.mark.parametrize(
    "function",
    [
        pytest.param(lambda a: torch.polar(a.abs() + 1, a.angle()), id="polar"),
        pytest.param(lambda a: torch.linalg.eigvals(torch.outer(a, a) + torch.diag(a)).abs(), id="eigvals"),
        pytest.param(lambda a: torch.linalg.eig(torch.outer(a, a) + torch.diag(a))[1].abs(), id="eig"),
        pytest.param(lambda a: (a.conj() * a.conj().imag).conj(), id="conj_imag"),
        pytest.param(lambda a: torch.view_as_real(a * 2), id="view_as_real"),
        pytest.param(lambda a: torch.nn.functional.conv1d(a.conj()[None, None], a[None, None].conj()), id="conv"),
        pytest.param(lambda a: torch.stack([a.conj(), -a]).prod(0), id="prod"),
    ],
)
def test_gradients(function):
    gradients = []
    for device in ("cpu", "npu"):
        a = VALUES.to(device).requires_grad_()
        y = function(a)
        slopes = torch.full_like(y.detach(), 1 - 2j if y.is_complex() else 2.0)
        gradients += torch.autograd.grad(y, a, slopes.conj() if y.is_complex() else torch._neg_view(slopes))
    assert gradients[1].device.type == "npu"
    torch.testing.assert_close(gradients[1].cpu(), gradients[0])
