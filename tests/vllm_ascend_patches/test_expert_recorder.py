# SPDX-License-Identifier: Apache-2.0
"""Choices of experts are told apart by request, whatever the order in which an engine computes tokens.

That they are the router's is tested in tests/exactness/rollout.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vllm_ascend_patches.expert_recorder import ExpertRecorder

EXPERTS, K, MOST = 8, 2, 16


class Mlp(torch.nn.Module):
    """A router whose input are its logits."""

    def __init__(self, experts: int) -> None:
        super().__init__()
        self.gate = Gate()
        self.experts = SimpleNamespace(
            global_num_experts=experts, top_k=K, use_grouped_topk=True, renormalize=True, topk_group=1,
            num_expert_group=1, custom_routing_function=None, scoring_func="sigmoid", e_score_correction_bias=None,
        )  # fmt: skip


class Gate(torch.nn.Module):
    def forward(self, logits: torch.Tensor) -> tuple[torch.Tensor, None]:
        return logits, None


def model(experts: int = EXPERTS, layers: int = 2) -> Any:
    """A model of one layer without experts and some with."""
    dense = SimpleNamespace(mlp=SimpleNamespace())
    return SimpleNamespace(
        model=SimpleNamespace(layers=[dense, *(SimpleNamespace(mlp=Mlp(experts)) for _ in range(layers))])
    )


class Engine:
    """Runs steps of tokens, whose routers choose what is asked for."""

    def __init__(self, experts: int = EXPERTS) -> None:
        self.model, self.experts = model(experts), experts
        self.recorder = ExpertRecorder(self.model, MOST, torch.device("npu"))
        self.recorder.recording = True

    def step(self, *parts: tuple[str, int, list[Any]], padding: int = 0, layers: int = 2) -> None:
        """Parts: a request, the position of its first token, and of each token the experts by layer."""
        self.recorder.begin_step()
        rows = [token for _, _, tokens in parts for token in tokens] + [[(0, 1), (0, 1)]] * padding
        for layer in range(layers):
            logits = torch.full((len(rows), self.experts), -5.0)
            for row, token in enumerate(rows):
                logits[row, list(token[layer])] = 5.0
            self.model.model.layers[1 + layer].mlp.gate(logits.to("npu"))
        self.recorder.end_step([r for r, _, _ in parts], [s for _, s, _ in parts], [len(t) for _, _, t in parts])


def tokens(*pairs: tuple[int, int]) -> list[Any]:
    """Tokens that go to these experts in the first layer, and to the next ones in the second."""
    return [[pair, tuple((expert + 1) % EXPERTS for expert in pair)] for pair in pairs]


def chosen(choices: np.ndarray) -> list[Any]:
    return [[tuple(sorted(int(expert) for expert in layer)) for layer in token] for token in choices]


def sort(some: list[Any]) -> list[Any]:
    return [[tuple(sorted(layer)) for layer in token] for token in some]


def test_prompts_in_pieces_beside_decoding_requests_and_padding() -> None:
    engine, a, b = Engine(), tokens((0, 3), (1, 2), (4, 5), (6, 2)), tokens((7, 5), (2, 5), (3, 4))
    engine.step(("a", 0, a[:2]), padding=3)
    engine.step(("b", 0, b[:1]), ("a", 2, a[2:3]))
    engine.step(("a", 3, a[3:]), ("b", 1, b[1:]), padding=1)
    taken = engine.recorder.take("a")
    assert taken.dtype == np.uint8 and taken.shape == (4, 2, K)
    assert chosen(taken) == sort(a)
    assert chosen(engine.recorder.take("b")) == sort(b)
    assert len(engine.recorder.take("a")) == 0


def test_more_experts_than_a_byte_has_numbers() -> None:
    engine = Engine(experts=300)
    engine.step(("a", 0, [[(299, 256), (1, 2)]]))
    taken = engine.recorder.take("a")
    assert taken.dtype == np.int16
    assert chosen(taken) == [[(256, 299), (1, 2)]]


def test_what_a_preempted_request_computes_again_keeps_its_first_choice() -> None:
    engine, first, again = Engine(), tokens((0, 1), (2, 3)), tokens((4, 5), (4, 6), (4, 7), (6, 7))
    engine.step(("a", 0, first))
    engine.step(("a", 0, again[:1]))
    engine.step(("a", 1, again[1:]))
    assert chosen(engine.recorder.take("a")) == sort(first + again[2:])


def test_a_moved_request_takes_its_choices_along() -> None:
    first, second = Engine(), Engine()
    before, again = tokens((0, 1), (2, 3), (4, 5)), tokens((7, 6), (7, 5), (7, 4), (7, 3))
    first.step(("a", 0, before[:2]))
    first.step(("a", 2, before[2:]))
    second.recorder.give("a", first.recorder.take("a"))
    second.step(("a", 0, again))
    assert chosen(second.recorder.take("a")) == sort(before + again[3:])


def test_choices_of_another_model_or_twice_are_refused() -> None:
    engine = Engine()
    choices = np.zeros((3, 2, K), np.uint8)
    for wrong in (choices[:, :1], choices.astype(np.int16), choices[:, :, :1]):
        with pytest.raises(ValueError, match="expected uint8 of \\[tokens, 2, 2\\]"):
            engine.recorder.give("a", wrong)
    engine.recorder.give("a", choices)
    with pytest.raises(ValueError, match="has choices of 3 tokens already"):
        engine.recorder.give("a", choices)


def test_a_layer_that_records_nothing_stops_the_run() -> None:
    """Also where the buffer holds what an earlier step has left."""
    engine = Engine()
    engine.step(("a", 0, tokens((0, 1), (2, 3))))
    with pytest.raises(RuntimeError, match="1 of 1 tokens x 2 layers have no choice of experts recorded"):
        engine.step(("a", 2, tokens((4, 5))), layers=1)


def test_tokens_from_a_cached_prefix_stop_the_run() -> None:
    engine = Engine()
    with pytest.raises(RuntimeError, match="request a continues at token 3, of which 0 were recorded"):
        engine.step(("a", 3, tokens((0, 1))))


def test_nothing_is_kept_unless_asked_for() -> None:
    engine = Engine()
    engine.recorder.recording = False
    engine.step(("a", 3, tokens((0, 1))))
    assert len(engine.recorder.take("a")) == 0
    engine.recorder.recording = True
    engine.step(("a", 0, tokens((0, 1))))
    engine.recorder.clear()
    assert len(engine.recorder.take("a")) == 0


def test_the_hooks_become_part_of_a_compiled_graph() -> None:
    """Of torch's own tracing and functionalising, with a compiler that runs the graph as it is; not of an NPU's.

    In a process of its own: what else has traced in this one must not matter.
    """
    command = [sys.executable, "-m", "tests.vllm_ascend_patches.compiled_hooks_process"]
    environment = {**os.environ, "TORCHDYNAMO_DISABLE": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_model_without_experts_is_refused() -> None:
    with pytest.raises(ValueError, match="no layer of the rollout's model has experts"):
        ExpertRecorder(model(layers=0), MOST, torch.device("npu"))
