# SPDX-License-Identifier: Apache-2.0
"""torch's own operator database: results on npu equal those on the CPU, or the operator is refused by name.

A part of `benchmarks/npu_sim_opinfo.py`, which tries the whole of it, in worker processes and in more ways.
"""

import pytest
import torch

from benchmarks.npu_sim_opinfo import BACKWARD, FORWARD, WAYS, entries, verdict_of


def test_operators_equal_cpu_or_are_refused_by_name():
    operators = [op for op in entries(torch.float32) if "fft" not in op.name]
    verdicts = {op.full_name: verdict_of(op, torch.float32, (FORWARD,)) for op in operators}
    refused = sorted(name for name, verdict in verdicts.items() if verdict.kind == "refused")
    print(f"{len(verdicts)} operators tried, refused: {refused}")
    assert {name: verdict for name, verdict in verdicts.items() if verdict.kind == "wrong"} == {}
    assert sum(verdict.kind == "ok" for verdict in verdicts.values()) > 600
    assert len(refused) < 10


@pytest.mark.parametrize(
    "name", ["add", "nn.functional.gelu", "index_select", "bmm", "nn.functional.layer_norm", "gather"]
)
def test_gradients_equal_cpu(name):
    op = next(op for op in entries(torch.float32) if op.name == name)
    assert verdict_of(op, torch.float32, (BACKWARD,)).kind == "ok"


@pytest.mark.parametrize("name", ["polar", "linalg.eig", "linalg.eigvals", "mul", "conj_physical", "mode"])
def test_lazy_bits_places_and_gradients(name):
    op = next(op for op in entries(torch.float32) if op.name == name)
    for dtype in {torch.float32, torch.complex64} & set(op.dtypes):
        assert verdict_of(op, dtype, WAYS).kind == "ok"


def test_a_wrong_value_and_an_error_are_found():
    op = next(op for op in entries(torch.float32) if op.name == "add")

    class Twice:
        """An operator that is wrong on the device, or fails there."""

        def __init__(self, fails: bool) -> None:
            self.fails = fails

        def __getattr__(self, name):
            return getattr(op, name)

        def op(self, x, *args, **kwargs):
            if self.fails and x.device.type == "npu":
                raise RuntimeError("stopped")
            return op.op(x, *args, **kwargs) * (2 if x.device.type == "npu" else 1)

    assert verdict_of(Twice(False), torch.float32, (FORWARD,)).reason.startswith("forward: ")
    assert verdict_of(Twice(True), torch.float32, (FORWARD,)).reason == "forward: RuntimeError('stopped')"
