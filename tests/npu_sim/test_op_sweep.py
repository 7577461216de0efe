# SPDX-License-Identifier: Apache-2.0
"""torch's own operator database: float32 results on npu equal those on the CPU, or the operator is refused by name."""

import itertools
import sys
import unittest
from types import ModuleType

import pytest
import torch
from torch.utils._pytree import tree_flatten, tree_map

# torch's test library wants the package expecttest for one base class, which the database does not use.
_stand_in = ModuleType("expecttest")
_stand_in.TestCase = unittest.TestCase  # type: ignore[attr-defined]  # filling a stand-in module
sys.modules.setdefault("expecttest", _stand_in)
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

SAMPLES = 2  # of each operator
# No two runs of these agree (random, or uninitialised memory); tensor_split wants its sections on the CPU.
RANDOM = {
    "bernoulli", "cauchy", "empty", "empty_like", "empty_permuted", "empty_strided", "exponential", "geometric",
    "log_normal", "multinomial", "new_empty", "new_empty_strided", "nn.functional.alpha_dropout",
    "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d",
    "nn.functional.feature_alpha_dropout", "nn.functional.fractional_max_pool2d",
    "nn.functional.fractional_max_pool3d", "nn.functional.multi_head_attention_forward", "nn.functional.rrelu",
    "nn.functional.scaled_dot_product_attention", "normal", "pca_lowrank", "rand_like", "randint", "randint_like",
    "randn", "randn_like", "svd_lowrank", "tensor_split", "torch.ops.aten._safe_softmax.default", "uniform",
}  # fmt: skip
# What the sweep may meet that is refused on purpose.
REFUSED = ("not supported on the simulated NPU", "no CPU kernel", "Could not run 'aten::", "only strided tensors")


def on_npu(value):
    """A sample of the database with its CPU tensors and devices replaced."""

    def replace(leaf):
        if isinstance(leaf, torch.Tensor):
            return leaf.npu()
        if leaf == "cpu" or (isinstance(leaf, torch.device) and leaf.type == "cpu"):
            return "npu"
        return leaf

    return tree_map(replace, value)


def samples_of(op):
    """The first samples of an operator; the database's own `sample_inputs` walks the whole stack for each of them."""
    torch.default_generator.manual_seed(1)
    return list(itertools.islice(op.sample_inputs_func(op, "cpu", torch.float32, False), SAMPLES))


def test_operators_equal_cpu_or_are_refused_by_name():
    checked: int = 0
    refused: set[str] = set()
    wrong: dict[str, str] = {}
    operators = [op for op in op_db if torch.float32 in op.dtypes and op.name not in RANDOM and "fft" not in op.name]
    # A copy to npu keeps what a tensor shows, not the storage behind it.
    operators = [op for op in operators if op.full_name != "as_strided.partial_views"]
    for op in operators:
        try:
            samples = samples_of(op)
        except Exception:  # some samples need packages that are not here
            continue
        for sample in samples:
            try:
                expected = op.op(sample.input, *sample.args, **sample.kwargs)
            except Exception:
                continue
            try:
                result = op.op(on_npu(sample.input), *on_npu(sample.args), **on_npu(sample.kwargs))
            except NotImplementedError as error:
                if any(text in str(error) for text in REFUSED):
                    refused.add(op.full_name)
                else:
                    wrong[op.full_name] = repr(error)
                break
            except Exception as error:
                wrong[op.full_name] = repr(error)[:300]
                break
            pairs = zip(tree_flatten(expected)[0], tree_flatten(result)[0], strict=True)
            for on_cpu, moved in pairs:
                if not isinstance(on_cpu, torch.Tensor):
                    continue
                if moved.device.type != "npu" or not torch.allclose(
                    moved.cpu().to(torch.complex128), on_cpu.to(torch.complex128), atol=1e-4, rtol=1e-4, equal_nan=True
                ):
                    wrong[op.full_name] = f"{moved.device}: values differ"
        checked += 1
    print(f"{checked} operators checked, refused: {sorted(refused)}")
    assert not wrong
    assert checked > 500
    assert len(refused) < 30


@pytest.mark.parametrize(
    "name", ["add", "nn.functional.gelu", "index_select", "bmm", "nn.functional.layer_norm", "gather"]
)
def test_gradients_equal_cpu(name):
    op = next(op for op in op_db if op.name == name)
    for sample in list(op.sample_inputs("cpu", torch.float32, requires_grad=True))[:6]:
        gradients = []
        for move in (False, True):
            sample_input, args, kwargs = (sample.input, sample.args, sample.kwargs)
            if move:
                sample_input, args, kwargs = on_npu((sample_input, args, kwargs))
            leaves = [
                t
                for t in tree_flatten((sample_input, args, kwargs))[0]
                if isinstance(t, torch.Tensor) and t.requires_grad
            ]
            output = op.op(sample_input, *args, **kwargs)
            gradients.append([g.cpu() for g in torch.autograd.grad(output.sin().sum(), leaves)])
        for on_cpu, moved in zip(*gradients, strict=True):
            torch.testing.assert_close(moved, on_cpu, atol=1e-4, rtol=1e-4)
