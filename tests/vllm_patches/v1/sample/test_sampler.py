# SPDX-License-Identifier: Apache-2.0
"""vLLM's own sampler, with the overlay: a token's log-probability is that of the distribution it was drawn from."""

from __future__ import annotations

import subprocess
import sys

import pytest

ID = "vllm_patches.v1.sample.sampler:forward"

_SAMPLER = """
import verl_patches.prelude_patch
import torch, vllm_ascend.patch.worker
from vllm.v1.sample.metadata import SamplingMetadata
from vllm.v1.sample.sampler import Sampler

def sampled(logits, temperatures, logprobs=0, **more):
    rows = len(logits)
    temperature = torch.tensor(temperatures, device=logits.device)
    random, greedy = bool((temperature > 0).all()), bool((temperature < 0).all())
    none = torch.empty(0)
    fields = dict(temperature=None if greedy else temperature, all_greedy=greedy, all_random=random, top_p=None,
        top_k=None, min_p=None, generators={}, max_num_logprobs=logprobs, no_penalties=True, prompt_token_ids=None,
        frequency_penalties=none, presence_penalties=none, repetition_penalties=none,
        output_token_ids=[[] for _ in range(rows)], min_tokens={}, logit_bias=[None] * rows,
        allowed_token_ids_mask=None, bad_words_token_ids={})
    return Sampler()(logits=logits, sampling_metadata=SamplingMetadata(**fields | more))

torch.manual_seed(7)
values = 3 * torch.randn(6, 300)
"""


def run(body: str, device: str = "npu", kind: str = "bfloat16") -> None:
    code = f"{_SAMPLER}logits = values.to({device!r}, torch.{kind})\n{body}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.proves(ID)
@pytest.mark.parametrize(("device", "kind"), [("cpu", "float32"), ("npu", "bfloat16")])
def test_log_probabilities_are_those_after_the_temperature_and_greedy_ones_before_it(device: str, kind: str) -> None:
    run(
        """
temperatures = [0.5, 1.0, 1.5, -1.0, 0.9, 2.0]
before = logits.clone()
out = sampled(logits, temperatures, logprobs=2)
tokens = out.sampled_token_ids.long().cpu()
assert tokens[3, 0] == before[3].float().argmax()
divisor = torch.tensor([[t if t > 0 else 1.0] for t in temperatures])
right = (before.cpu().double() / divisor.double()).log_softmax(-1)
ids, given, ranks = (part.cpu() for part in out.logprobs_tensors)
assert torch.equal(ids[:, :1].long(), tokens), (ids, tokens)
torch.testing.assert_close(given.double(), right.gather(1, ids.long()), rtol=0, atol=1e-5)
assert given.dtype == torch.float32 and given.shape == (6, 3)
assert torch.equal(ranks.flatten(), (right >= right.gather(1, tokens) - 1e-12).sum(-1))
""",
        device,
        kind,
    )


def test_the_tokens_are_those_without_the_patch_and_at_one_so_are_the_log_probabilities() -> None:
    run(
        """
patched, original = Sampler.forward, Sampler.forward.__wrapped__
def both(temperatures, **more):
    found = []
    for forward in (patched, original):
        Sampler.forward = forward
        torch.manual_seed(11)
        found.append(sampled(logits.clone(), temperatures, **more))
    return found
for temperatures in ([0.5, 1.0, 1.5, -1.0, 0.9, 2.0], [1.0] * 6, [-1.0] * 6):
    ours, theirs = both(temperatures)
    assert torch.equal(ours.sampled_token_ids, theirs.sampled_token_ids)
    same = torch.equal(ours.logprobs_tensors.logprobs, theirs.logprobs_tensors.logprobs)
    assert same == (temperatures[0] != 0.5), temperatures
without = sampled(logits, [1.5] * 6, logprobs=None)
assert without.logprobs_tensors is None
"""
    )
