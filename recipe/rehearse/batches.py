# SPDX-License-Identifier: Apache-2.0
"""What verl's trainer hands to the workers of a die, made up: prompts for the rollout, sequences for the training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tensordict import TensorDict
from verl import DataProto

PADDING, END = 0, 1
FIRST_TOKEN = 8  # those before have a meaning of their own


@dataclass(frozen=True)
class Lengths:
    """Tokens of every prompt and every answer, and the lengths that they are padded to."""

    prompt: int
    response: int
    padded_prompt: int
    padded_response: int

    @classmethod
    def full(cls, prompt: int, response: int) -> Lengths:
        """Nothing is padded."""
        return cls(prompt, response, prompt, response)

    @property
    def sequence(self) -> int:
        return self.prompt + self.response


def prompts(count: int, lengths: Lengths, vocabulary: int) -> DataProto:
    """A batch for `generate_sequences`: int64 tensors of [count, padded prompt], padded on the left."""
    ids = torch.randint(FIRST_TOKEN, vocabulary, (count, lengths.padded_prompt))
    mask = torch.ones_like(ids)
    start = lengths.padded_prompt - lengths.prompt
    ids[:, :start], mask[:, :start] = PADDING, 0
    batch = DataProto(
        batch=TensorDict({"input_ids": ids, "attention_mask": mask, "position_ids": _positions(mask)}, count),
        meta_info={"eos_token_id": END, "pad_token_id": PADDING, "do_sample": True},
    )
    raw = np.empty(count, dtype=object)
    raw[:] = ids[:, start:].tolist()
    batch.non_tensor_batch["raw_prompt_ids"] = raw
    return batch


def sequences(count: int, lengths: Lengths, vocabulary: int) -> DataProto:
    """A batch as the trainer has it after the advantages: prompts padded on the left, answers on the right.

    int64 tensors of [count, padded prompt + padded answer]; those of the answers, and the advantages (float32), of
    [count, padded answer].
    """
    padded = lengths.padded_prompt + lengths.padded_response
    start = lengths.padded_prompt - lengths.prompt
    ids = torch.randint(FIRST_TOKEN, vocabulary, (count, padded))
    mask = torch.zeros_like(ids)
    mask[:, start : start + lengths.sequence] = 1
    tensors = {
        "input_ids": ids * mask,
        "attention_mask": mask,
        "position_ids": _positions(mask),
        "responses": (ids * mask)[:, -lengths.padded_response :].clone(),
        "response_mask": mask[:, -lengths.padded_response :].clone(),
        "advantages": torch.randn(count, lengths.padded_response),
    }
    return DataProto(batch=TensorDict(tensors, count), meta_info={"temperature": 1.0})


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)
