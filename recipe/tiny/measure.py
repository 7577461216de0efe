# SPDX-License-Identifier: Apache-2.0
"""Samples answers from the tiny model with plain Hugging Face code and grades them with the run's own reward."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe.data.templates import Template
from recipe.reward.verdict import Verdict
from recipe.reward.verifiers import get_verifier, verify
from recipe.tiny.arithmetic import Sum
from recipe.tiny.warm_start import prompt_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True)
class Measurement:
    """Shares between 0 and 1: of right answers, of problems solved in ``tries`` samples, of answers in the format."""

    accuracy: float
    pass_at_tries: float
    format: float
    tries: int
    problems: int


def sample(
    model: PreTrainedModel,
    prompts: torch.Tensor,
    tries: int,
    max_tokens: int,
    generator: torch.Generator,
) -> torch.Tensor:
    """Samples at temperature 1 over the whole vocabulary.

    ``prompts`` int64 [n, length], all of one length. Returns int64 [n * tries, max_tokens], the samples of one prompt
    beside each other, filled with the end token after the first one.
    """
    import torch
    from transformers import DynamicCache

    eos = model.config.eos_token_id
    with torch.inference_mode():
        cache = DynamicCache()
        logits = model(input_ids=prompts, past_key_values=cache, use_cache=True).logits[:, -1]
        cache.batch_repeat_interleave(tries)
        logits = logits.repeat_interleave(tries, dim=0)
        done = torch.zeros(logits.shape[0], dtype=torch.bool)
        out = []
        for _ in range(max_tokens):
            token = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)
            token[done] = eos
            out.append(token)
            done |= token[:, 0] == eos
            if done.all():
                break
            logits = model(input_ids=token, past_key_values=cache, use_cache=True).logits[:, -1]
    tokens = torch.cat(out, dim=1)
    return torch.nn.functional.pad(tokens, (0, max_tokens - tokens.shape[1]), value=eos)


def measure(
    model: PreTrainedModel,
    sums: Sequence[Sum],
    template: Template,
    tokenizer: PreTrainedTokenizerFast,
    *,
    tries: int = 8,
    max_tokens: int = 24,
    seed: int = 0,
) -> Measurement:
    """Accuracy at temperature 1, pass@``tries`` and format rate over ``sums``."""
    import torch

    reward = get_verifier()
    generator = torch.Generator().manual_seed(seed)
    by_length: dict[int, list[tuple[Sum, list[int]]]] = defaultdict(list)
    for item in sums:
        ids = prompt_ids(item, template, tokenizer)
        by_length[len(ids)].append((item, ids))
    right = solved = formatted = 0.0
    for group in by_length.values():
        tokens = sample(model, torch.tensor([ids for _, ids in group]), tries, max_tokens, generator)
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for place, (item, _) in enumerate(group):
            answers = texts[place * tries : (place + 1) * tries]
            results = [verify(reward, answer, str(item.value)) for answer in answers]
            correct = [result.verdict is Verdict.CORRECT for result in results]
            right += sum(correct)
            formatted += sum(result.format for result in results)
            solved += any(correct)
    count = len(sums) * tries
    return Measurement(right / count, solved / len(sums), formatted / count, tries, len(sums))
