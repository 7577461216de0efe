# SPDX-License-Identifier: Apache-2.0
"""MindSpeed's compiled operators: the interception of its builds, values against formulas, gradients through rope."""

import pytest
import torch
import torch_npu
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils import cpp_extension

SOURCE = "/anywhere/site-packages/mindspeed/ops/csrc/cann/gmm.cpp"
COUNTS = st.lists(st.integers(0, 5), min_size=1, max_size=4)


def build(name):
    return cpp_extension.load(name=name, sources=[SOURCE], extra_cflags=["-O2"], verbose=True)


def ends(counts):
    return [sum(counts[: i + 1]) for i in range(len(counts))]


def test_other_builds_pass_through(monkeypatch):
    seen = []
    wrapped = cpp_extension.load.__wrapped__
    monkeypatch.setattr(cpp_extension, "_jit_compile", lambda *args, **kwargs: seen.append(args) or "built")
    assert cpp_extension.load(name="mine", sources=["/home/someone/mine.cpp"], build_directory="/tmp") == "built"
    assert seen and cpp_extension.load is not wrapped


def test_unknown_operator_is_refused_by_name():
    with pytest.raises(NotImplementedError, match="MindSpeed's operator 'npu_ring_attention_update' is not simulated"):
        build("npu_ring_attention_update")


def test_the_interception_waits_until_somebody_builds(run_python):
    code = (
        "import sys, torch, torch_npu; assert 'setuptools' not in sys.modules;"
        "from torch.utils import cpp_extension; print(cpp_extension.load.npu_sim, cpp_extension.__spec__.origin)"
    )
    done = run_python(code)
    assert done.stdout == f"True {cpp_extension.__file__}\n", done.stderr


def test_pip_may_be_imported_before(run_python):
    done = run_python("import pip; import torch; import torch_npu; print(torch.ones(2, device='npu').sum().item())")
    assert done.stdout == "2.0\n", done.stderr


def test_an_import_that_fails_is_intercepted_the_next_time(run_python):
    code = (
        "import sys, torch, torch_npu; sys.modules['setuptools'] = None\n"
        "try: from torch.utils import cpp_extension\n"
        "except ImportError: del sys.modules['setuptools']\n"
        "from torch.utils import cpp_extension; print(cpp_extension.load.npu_sim)"
    )
    done = run_python(code)
    assert done.stdout == "True\n", done.stderr


def test_installing_twice_wraps_once():
    from torch_npu.ops import mindspeed_jit

    before = cpp_extension.load
    mindspeed_jit.install()
    assert cpp_extension.load is before


@settings(max_examples=15, deadline=None)
@given(counts=COUNTS, as_tensor=st.booleans(), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_grouped_product_and_its_backward(counts, as_tensor, dtype):
    # grouped_matmul takes cumulative ends (host list or tensor), grouped_matmul_v2 counts.
    for name, kind, listed in (("grouped_matmul", 0, ends(counts)), ("grouped_matmul_v2", 1, counts)):
        ops = build(name)
        groups = torch.tensor(listed).npu() if as_tensor else listed
        x, weight = torch.randn(sum(counts), 6).to(dtype), torch.randn(len(counts), 6, 4).to(dtype)
        grad = torch.randn(sum(counts), 4).to(dtype)
        (out,) = ops.npu_gmm([x.npu()], [weight.npu()], [], groups, 0, kind)
        (dx,), (dw,), bias = ops.npu_gmm_backward([grad.npu()], [x.npu()], [weight.npu()], groups, kind)
        (fused_dx,), none, _ = ops.npu_gmm_backward_fusion([grad.npu()], [weight.npu()], groups, kind)
        (typed_dw,) = ops.npu_gmm([x.npu().t()], [grad.npu()], [], groups, 2, kind)
        tol = 1e-5 if dtype == torch.float32 else 6e-2
        row = 0
        expected_dw = torch.zeros(weight.shape, dtype=torch.float64)
        for g, count in enumerate(counts):
            for i in range(row, row + count):
                torch.testing.assert_close(
                    out[i].cpu().double(), x[i].double() @ weight[g].double(), rtol=tol, atol=tol
                )
                torch.testing.assert_close(
                    dx[i].cpu().double(), weight[g].double() @ grad[i].double(), rtol=tol, atol=tol
                )
                expected_dw[g] += torch.outer(x[i].double(), grad[i].double())
            row += count
        for found in (dw, typed_dw):
            torch.testing.assert_close(found.cpu().double(), expected_dw, rtol=tol, atol=tol)
        assert torch.equal(fused_dx.cpu(), dx.cpu()) and bias == none == []


def test_matmul_accumulates_in_float32_in_place():
    ops = build("npu_matmul_add_fp32")
    grad, x, total = torch.randn(2, 5, 4).bfloat16(), torch.randn(2, 5, 3).bfloat16(), torch.randn(4, 3)
    kept = total.npu()
    ops.npu_matmul_add_fp32(grad.npu(), x.npu(), kept)
    expected = total.double() + sum(
        torch.outer(grad[b, i].double(), x[b, i].double()) for b in range(2) for i in range(5)
    )
    torch.testing.assert_close(kept.cpu().double(), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="npu_matmul_add_fp32: C is of dtype bfloat16"):
        ops.npu_matmul_add_fp32(grad.npu(), x.npu(), kept.bfloat16())
    with pytest.raises(ValueError, match="npu_matmul_add_fp32: C is of shape"):
        ops.npu_matmul_add_fp32(x.npu(), grad.npu(), kept)


def test_grouped_matmul_accumulates_per_group():
    ops = build("npu_groupmatmul_add_fp32")
    counts = [2, 0, 3]
    x, grad, total = torch.randn(5, 4).bfloat16(), torch.randn(5, 3).bfloat16(), torch.randn(3, 4, 3)
    kept = total.flatten(0, 1).npu()  # MindSpeed's main_grad may be flat
    ops.npu_groupmatmul_add_fp32(x.npu(), grad.npu(), torch.tensor(ends(counts)).npu(), kept)
    expected, row = total.double(), 0
    for g, count in enumerate(counts):
        for i in range(row, row + count):
            expected[g] += torch.outer(x[i].double(), grad[i].double())
        row += count
    torch.testing.assert_close(kept.cpu().double().view(3, 4, 3), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="npu_groupmatmul_add_fp32: group_list is of dtype int32"):
        ops.npu_groupmatmul_add_fp32(x.npu(), grad.npu(), torch.tensor(ends(counts), dtype=torch.int32).npu(), kept)
    with pytest.raises(ValueError, match="npu_groupmatmul_add_fp32: grad is of shape"):
        ops.npu_groupmatmul_add_fp32(x.npu(), grad.npu(), torch.tensor([5]).npu(), kept)


def test_grouped_product_refuses():
    ops = build("grouped_matmul")
    x, weight = torch.zeros(3, 6).npu(), torch.zeros(2, 6, 4).npu()
    with pytest.raises(NotImplementedError, match=r"npu_gmm.*group_list=None"):
        ops.npu_gmm([x], [weight], [], None, 0, 0)
    with pytest.raises(NotImplementedError, match=r"npu_gmm.*bias"):
        ops.npu_gmm([x], [weight], [torch.zeros(2, 4).npu()], [1, 3], 0, 0)
    with pytest.raises(NotImplementedError, match=r"npu_gmm.*group_type=1"):
        ops.npu_gmm([x], [weight], [], [1, 3], 1, 0)
    with pytest.raises(ValueError, match="npu_gmm: group_list is of dtype int32"):
        ops.npu_gmm([x], [weight], [], torch.tensor([1, 3], dtype=torch.int32).npu(), 0, 0)
    with pytest.raises(RuntimeError, match=r"npu_gmm: x is on cpu"):
        ops.npu_gmm([x.cpu()], [weight], [], [1, 3], 0, 0)


def test_compiled_rope_and_permutation_compute_as_the_public_ones():
    assert (
        build("npu_rotary_position_embedding").npu_rotary_position_embedding is torch_npu.npu_rotary_position_embedding
    )
    permute = build("npu_moe_token_permute").npu_moe_token_permute
    unpermute = build("npu_moe_token_unpermute").npu_moe_token_unpermute
    tokens, experts = torch.randn(5, 4).npu(), torch.randint(0, 3, (5, 2)).npu()
    rows, place = permute(tokens, experts)
    for own, public in zip((rows, place), torch_npu.npu_moe_token_permute(tokens, experts), strict=True):
        assert torch.equal(own, public)
    torch.testing.assert_close(unpermute(rows, place, torch.full((5, 2), 0.5).npu()), tokens)


@settings(max_examples=10, deadline=None)
@given(step=st.integers(1, 50), decay=st.sampled_from([0.0, 0.1]), low=st.booleans())
def test_the_swapping_optimizers_step_is_pytorchs_adamw(step, decay, low):
    op = build("npu_apply_fused_adamw_v2").npu_apply_fused_adamw_v2
    param, first, second = torch.randn(7), torch.randn(7), torch.rand(7)
    grad = torch.randn(7).to(torch.bfloat16 if low else torch.float32)
    leaf = torch.nn.Parameter(param.clone())
    leaf.grad = grad.float()
    adam = torch.optim.AdamW([leaf], lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=decay)
    adam.state[leaf] = {"step": torch.tensor(step - 1.0), "exp_avg": first.clone(), "exp_avg_sq": second.clone()}
    adam.step()
    on_npu = [tensor.npu() for tensor in (param, grad, first, second)]
    op(*on_npu, torch.empty(0), torch.tensor(step).npu(), 1e-2, 0.9, 0.95, decay, 1e-8, False, False)
    torch.testing.assert_close(on_npu[0].cpu(), leaf.detach(), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(on_npu[2].cpu(), adam.state[leaf]["exp_avg"], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(on_npu[3].cpu(), adam.state[leaf]["exp_avg_sq"], rtol=1e-6, atol=1e-7)
