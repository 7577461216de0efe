# SPDX-License-Identifier: Apache-2.0
"""What verl's trainer hands to the workers of a die, made up: prompts for the rollout, sequences for the training."""

from __future__ import annotations

import numpy as np
import torch
from tensordict import TensorDict
from verl import DataProto

from recipe.rehearse.lengths import Lengths

PADDING, END = 0, 1
FIRST_TOKEN = 8  # those before have a meaning of their own


def prompts(count: int, lengths: Lengths, vocabulary: int) -> DataProto:
    """A batch for `generate_sequences`: int64 tensors of [count, padded prompt], padded on the left."""
    ids = torch.randint(FIRST_TOKEN, vocabulary, (count, lengths.padded_prompt))
    mask = torch.ones_like(ids)
    starts = [lengths.padded_prompt - prompt for prompt, _ in lengths.drawn(count)]
    for row, start in enumerate(starts):
        ids[row, :start], mask[row, :start] = PADDING, 0
    batch = DataProto(
        batch=TensorDict({"input_ids": ids, "attention_mask": mask, "position_ids": _positions(mask)}, count),
        meta_info={"eos_token_id": END, "pad_token_id": PADDING, "do_sample": True},
    )
    raw = np.empty(count, dtype=object)
    raw[:] = [row[start:] for row, start in zip(ids.tolist(), starts, strict=True)]
    batch.non_tensor_batch["raw_prompt_ids"] = raw
    return batch


def sequences(count: int, lengths: Lengths, vocabulary: int) -> DataProto:
    """A batch as the trainer has it after the advantages: prompts padded on the left, answers on the right.

    int64 tensors of [count, padded prompt + padded answer]; those of the answers, and the advantages (float32), of
    [count, padded answer].
    """
    padded = lengths.padded_prompt + lengths.padded_response
    ids = torch.randint(FIRST_TOKEN, vocabulary, (count, padded))
    mask = torch.zeros_like(ids)
    for row, (prompt, response) in enumerate(lengths.drawn(count)):
        mask[row, lengths.padded_prompt - prompt : lengths.padded_prompt + response] = 1
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
