# SPDX-License-Identifier: Apache-2.0
"""Supervised warm start: random weights to a base model that knows the format, and can add but seldom bothers.

It learns two habits: to work a sum out, and, more often, to say a number at once, which is nearly always wrong. The
result solves a problem often in eight tries and seldom in one. GRPO finds that working it out pays, so accuracy and
response length rise together.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recipe.data.templates import Template
from recipe.tiny.arithmetic import Sum, demonstration, guess
from recipe.tiny.sizes import LEGAL, SMALLEST

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

IGNORED = -100  # label of a position without loss


@dataclass(frozen=True)
class WarmStart:
    """Settings. ``guess_habit`` is the probability of guessing that the model learns, ``guess_share`` the share of
    guesses in what it reads (smaller: there is little to learn in them). Muon trains the matrices between embedding
    and head, AdamW the rest."""

    steps: int = 200
    batch: int = 64
    guess_habit: float = 0.65
    guess_share: float = 0.25
    muon_rate: float = 0.02
    adamw_rate: float = 3e-3
    warmup_steps: int = 20
    last_rate: float = 0.05
    weight_decay: float = 0.01
    gradient_clip: float = 1.0
    router_bias_rate: float = 0.001


# By sizes. The legal model's steps are few and small: it has 14 times the weights, and is to try a run, not to learn.
WARM_STARTS = {SMALLEST: WarmStart(), LEGAL: WarmStart(steps=30, batch=16, warmup_steps=3)}


class Demonstrations:
    """Tokenised demonstrations of sums, right-padded batches of them. Prompts are rendered as verl renders them."""

    def __init__(self, sums: Sequence[Sum], template: Template, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self._sums = sums
        self.largest = max(max(item.left, item.right) for item in sums)
        self._tokenizer = tokenizer
        self.rng = random.Random(f"demonstrations {seed}")
        self._prompts = {item: prompt_ids(item, template, tokenizer) for item in sums}
        self._responses: dict[str, list[int]] = {}
        self._first_of_guess = self._response_ids(guess(0))[0]
        self._first_of_worked = self._response_ids(sums[0].worked)[0]

    def batch(self, size: int, guess_share: float, guess_habit: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(input ids, labels), both int64 [size, longest]; labels are ``IGNORED`` outside the response.

        Guessing or working out is decided by the first token of a response. Its label is drawn with ``guess_habit``,
        apart from the text that follows: so the habit can be strong while most of the text is worth learning.
        """
        import torch

        rows = []
        for item in self.rng.choices(self._sums, k=size):
            rows.append((self._prompts[item], self._response_ids(self.response(item, guess_share))))
        longest = max(len(prompt) + len(response) for prompt, response in rows)
        ids = torch.full((size, longest), self._tokenizer.pad_token_id)
        labels = torch.full((size, longest), IGNORED)
        for row, (prompt, response) in enumerate(rows):
            end = len(prompt) + len(response)
            ids[row, :end] = torch.tensor(prompt + response)
            labels[row, len(prompt) : end] = torch.tensor(response)
            habit = self.rng.random() < guess_habit
            labels[row, len(prompt)] = self._first_of_guess if habit else self._first_of_worked
        return ids, labels

    def response(self, item: Sum, guess_share: float) -> str:
        """The text of one demonstration; a guess with probability ``guess_share``."""
        return demonstration(item, guess_share, self.largest, self.rng)

    def _response_ids(self, text: str) -> list[int]:
        if text not in self._responses:
            ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
            self._responses[text] = [*ids, self._tokenizer.eos_token_id]
        return self._responses[text]


def prompt_ids(item: Sum, template: Template, tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """Token ids of the rendered prompt, the very ones that verl's dataset sends to the rollout."""
    text = tokenizer.apply_chat_template(template.messages(item.question), add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def train(
    model: PreTrainedModel,
    data: Demonstrations,
    settings: WarmStart,
    progress: Callable[[str], None],
) -> None:
    """Trains ``model`` (fp32, on the CPU) in place. Deterministic for one thread count and torch version."""
    import torch

    matrices = [p for name, p in model.model.layers.named_parameters() if p.ndim == 2]
    chosen_ids = {id(p) for p in matrices}
    remaining = [p for p in model.parameters() if id(p) not in chosen_ids]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=settings.muon_rate, weight_decay=settings.weight_decay),
        torch.optim.AdamW(
            remaining, lr=settings.adamw_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay, fused=True
        ),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(each, lambda step: _rate(step, settings)) for each in optimizers]
    balancer = RouterBalancer(model, settings.router_bias_rate)
    model.train()
    started, loss_sum = time.monotonic(), 0.0
    for step in range(1, settings.steps + 1):
        ids, labels = data.batch(settings.batch, settings.guess_share, settings.guess_habit)
        # Right padding under a causal mask is never attended to from a response, so no attention mask is needed.
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        wanted = labels[:, 1:]
        chosen = wanted != IGNORED
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[chosen]), wanted[chosen])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        balancer.step()
        loss_sum += loss.item()
        if step % 50 == 0 or step == settings.steps:
            rate = step / (time.monotonic() - started)
            count = 50 if step % 50 == 0 else step % 50
            progress(
                f"warm start {step}/{settings.steps}  loss {loss_sum / count:.3f}  {rate:.1f} steps/s  "
                f"{(settings.steps - step) / rate:.0f} s left"
            )
            loss_sum = 0.0
    balancer.close()
    model.eval()


class RouterBalancer:
    """Balances experts without an auxiliary loss, as DeepSeek-V3 does (arXiv:2412.19437, section 2.1.2).

    After each step the correction bias of an expert that got more than its share of tokens falls by ``rate``, that
    of the others rises by it. So the tiny model's router biases are real values, and a loader that drops them is seen.
    A model whose routers have no such bias is left alone.
    """

    def __init__(self, model: PreTrainedModel, rate: float) -> None:
        self._rate = rate
        gates = [layer.mlp.gate for layer in model.model.layers if hasattr(layer.mlp, "gate")]
        self._gates = [gate for gate in gates if hasattr(gate, "e_score_correction_bias")]
        self._counts: dict[int, torch.Tensor] = {}
        self._hooks = [gate.register_forward_hook(self._count) for gate in self._gates]

    def _count(self, gate: torch.nn.Module, _inputs: object, outputs: tuple[torch.Tensor, torch.Tensor]) -> None:
        import torch

        experts = gate.e_score_correction_bias.numel()
        self._counts[id(gate)] = torch.bincount(outputs[0].reshape(-1), minlength=experts).float()

    def step(self) -> None:
        """Moves every bias once, by the token counts of the last forward."""
        for gate in self._gates:
            counts = self._counts[id(gate)]
            gate.e_score_correction_bias += self._rate * (counts.mean() - counts).sign()

    def close(self) -> None:
        """Takes the hooks off the model."""
        for hook in self._hooks:
            hook.remove()


def _rate(step: int, settings: WarmStart) -> float:
    """Learning rate factor: linear warm-up, then half a cosine down to ``last_rate``."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return settings.last_rate + (1 - settings.last_rate) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, done)))
