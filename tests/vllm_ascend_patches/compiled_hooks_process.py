# SPDX-License-Identifier: Apache-2.0
"""Compiles a model whose routers are hooked, and holds what was kept against what they were given; 0: it is equal."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch._dynamo.backends.debugging import aot_eager

from tests.vllm_ascend_patches.test_expert_recorder import EXPERTS, MOST, K, Mlp
from verl_patches.compile_toggle import true_compile
from vllm_ascend_patches.expert_recorder import ExpertRecorder


class Layer(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = Mlp(EXPERTS)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return 2 * self.mlp.gate(hidden)[0]


def main() -> None:
    torch._dynamo.config.disable = False
    stack = torch.nn.Sequential(Layer(), Layer())
    stack.layers = list(stack)
    recorder = ExpertRecorder(SimpleNamespace(model=stack), MOST, torch.device("cpu"))  # type: ignore[arg-type]
    recorder.recording = True
    graphs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return aot_eager(graph, inputs)

    with true_compile():
        compiled = torch.compile(stack, fullgraph=True, dynamic=True, backend=backend)
    for step in range(3):
        recorder.begin_step()
        hidden = torch.randn(4, EXPERTS, generator=torch.Generator().manual_seed(step))
        with torch.inference_mode():
            compiled(hidden)
        recorder.end_step([str(step)], [0], [4])
        taken = torch.from_numpy(recorder.take(str(step))).sort(dim=-1)[0].long()
        expected = hidden.topk(K)[1].sort(dim=-1)[0]
        assert torch.equal(taken, torch.stack([expected, expected], dim=1))
    assert len(graphs) == 1


if __name__ == "__main__":
    main()
