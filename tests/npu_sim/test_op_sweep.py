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

OPERATORS, SAMPLES = 160, 2  # a fixed sample of about 560 operators, in half a minute
RANDOM = {"bernoulli", "cauchy", "exponential", "geometric", "log_normal", "multinomial", "normal", "uniform", "rand_like",
          "randint", "randint_like", "randn", "randn_like", "empty", "empty_like", "empty_permuted", "empty_strided",
          "new_empty", "new_empty_strided", "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d",
          "nn.functional.alpha_dropout", "nn.functional.feature_alpha_dropout", "nn.functional.rrelu", "pca_lowrank",
          "svd_lowrank", "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d",
          "nn.functional.scaled_dot_product_attention", "as_strided_partial_views", "torch.ops.aten._safe_softmax.default",
          "nn.functional.multi_head_attention_forward"}  # fmt: skip
# What the sweep may meet that is refused on purpose.
REFUSED = ("not supported on the simulated NPU", "no CPU kernel", "Could not run 'aten::", "only strided tensors")


def moved(value):
    return tree_map(lambda x: x.npu() if isinstance(x, torch.Tensor) else torch.device("npu") if isinstance(x, torch.device) else
                    "npu" if x == "cpu" else x, value)  # fmt: skip


def test_operators_equal_cpu_or_are_refused_by_name():
    checked: int = 0
    refused: set[str] = set()
    wrong: dict[str, str] = {}
    operators = [op for op in op_db if torch.float32 in op.dtypes and op.name not in RANDOM and "fft" not in op.name]
    operators.sort(key=lambda op: hash_order(op.full_name))
    for op in operators[:OPERATORS]:
        try:
            samples = list(itertools.islice(op.sample_inputs("cpu", torch.float32), SAMPLES))
        except Exception:  # some samples need packages that are not here
            continue
        for sample in samples:
            try:
                expected = op.op(sample.input, *sample.args, **sample.kwargs)
            except Exception:
                continue
            try:
                result = op.op(moved(sample.input), *moved(sample.args), **moved(sample.kwargs))
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
            for on_cpu, on_npu in pairs:
                if not isinstance(on_cpu, torch.Tensor):
                    continue
                if on_npu.device.type != "npu" or not torch.allclose(
                    on_npu.cpu().to(torch.complex128), on_cpu.to(torch.complex128), atol=1e-4, rtol=1e-4, equal_nan=True
                ):
                    wrong[op.full_name] = f"{on_npu.device}: values differ"
        checked += 1
    print(f"{checked} operators checked, refused: {sorted(refused)}")
    assert not wrong
    assert checked > OPERATORS - 10
    assert len(refused) < checked / 20


def hash_order(name: str) -> int:
    """A fixed shuffle, so that a prefix is a sample of all kinds of operators."""
    value = 0
    for character in name:
        value = (value * 1000003 + ord(character)) % (1 << 61)
    return value


@pytest.mark.parametrize(
    "name", ["add", "nn.functional.gelu", "index_select", "bmm", "nn.functional.layer_norm", "gather"]
)
def test_gradients_equal_cpu(name):
    op = next(op for op in op_db if op.name == name)
    for sample in list(op.sample_inputs("cpu", torch.float32, requires_grad=True))[:6]:
        gradients = []
        for on_npu in (False, True):
            sample_input, args, kwargs = (sample.input, sample.args, sample.kwargs)
            if on_npu:
                sample_input, args, kwargs = moved((sample_input, args, kwargs))
            leaves = [
                t
                for t in tree_flatten((sample_input, args, kwargs))[0]
                if isinstance(t, torch.Tensor) and t.requires_grad
            ]
            output = op.op(sample_input, *args, **kwargs)
            gradients.append([g.cpu() for g in torch.autograd.grad(output.sin().sum(), leaves)])
        for on_cpu, on_npu in zip(*gradients, strict=True):
            torch.testing.assert_close(on_npu, on_cpu, atol=1e-4, rtol=1e-4)
