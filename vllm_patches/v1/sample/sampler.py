# SPDX-License-Identifier: Apache-2.0
"""The log-probabilities of sampled tokens are those that they were sampled with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
from vllm.v1.sample.sampler import _SAMPLING_EPS as GREEDY_BELOW

from recipe.overlay import patch


@patch(
    "vllm.v1.sample.sampler:Sampler.forward",
    why="it gives log-probabilities before the temperature, the actor computes them after it: at any temperature but 1 "
    "the two are compared, and importance weights computed, as if the engines disagreed",
    upstream="vllm==0.9.1",
    fingerprint="sha256:be0ccb8b58a15052863a25ebd16961228df483a13c5bfc9eea7f753498487147",
    remove_when="vLLM has logprobs_mode 'processed_logprobs' and verl asks for it",
)
def forward(original: Callable[..., Any], self: Any, logits: torch.Tensor, sampling_metadata: Any) -> Any:
    """Sample as upstream; then the log-probabilities of softmax(logits / temperature), in float32.

    Args:
        logits: [requests, vocabulary], in the model's type.
        sampling_metadata: vLLM's SamplingMetadata; `temperature` is [requests], or None where all are greedy.

    A greedy request (temperature below 0 or next to it) keeps those of softmax(logits), as upstream. What else changes
    a distribution (penalties, top-k, top-p, min-p) is left out, as upstream and as in the actor.
    """
    wanted = sampling_metadata.max_num_logprobs
    if wanted is None or sampling_metadata.all_greedy:
        return original(self, logits, sampling_metadata)
    # NPU-ADAPTATION: log-probabilities after the temperature
    temperature = sampling_metadata.temperature
    divisor = torch.where(temperature < GREEDY_BELOW, torch.ones_like(temperature), temperature)
    # Computed first: sampling works on the logits in place.
    log_probabilities = self.compute_logprobs(logits.to(torch.float32) / divisor.unsqueeze(1))
    output = original(self, logits, dataclasses.replace(sampling_metadata, max_num_logprobs=None))
    tokens = output.sampled_token_ids.squeeze(-1).long()
    output.logprobs_tensors = self.gather_logprobs(log_probabilities, wanted, token_ids=tokens)
    return output
