# SPDX-License-Identifier: Apache-2.0
"""verl's own reward managers call both forms and put the reward at the last token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo.reward import compute_reward, load_reward_manager

REWARD = Path(__file__).parents[4] / "verl_patches" / "utils" / "reward_score" / "r1_zero.py"
RESPONSES = [
    "<think></think><answer>\\boxed{3 1/2}</answer>",
    "<think></think><answer>\\boxed{8}</answer>",
    "<think></think><answer>\\boxed{9!!}</answer>",
    "3.5",
]


class Characters:
    """A tokenizer with one token a character."""

    def decode(self, ids: Any, skip_special_tokens: bool = True) -> str:
        return "".join(chr(int(code)) for code in ids)


def data() -> DataProto:
    longest = max(map(len, RESPONSES))
    padded = [[*map(ord, text), *[0] * (longest - len(text))] for text in RESPONSES]
    return DataProto.from_dict(
        tensors={
            "prompts": torch.ones(len(RESPONSES), 2, dtype=torch.long),
            "responses": torch.tensor(padded),
            "attention_mask": torch.tensor([[1] * (2 + len(text)) + [0] * (longest - len(text)) for text in RESPONSES]),
        },
        non_tensors={
            "reward_model": np.array([{"style": "rule", "ground_truth": "3.5"}] * len(RESPONSES), dtype=object),
            "data_source": np.array(["deepscaler"] * len(RESPONSES), dtype=object),
            "extra_info": np.array([{} for _ in RESPONSES], dtype=object),
        },
    )


def manager(kind: str, name: str, **kwargs: Any) -> Any:
    config = {
        "reward_model": {"reward_manager": kind},
        "custom_reward_function": {"path": str(REWARD), "name": name, "reward_kwargs": kwargs},
        "data": {"reward_fn_key": "data_source"},
    }
    return load_reward_manager(OmegaConf.create(config), Characters(), num_examine=0)


@pytest.mark.parametrize(("kind", "name"), [("naive", "compute_score"), ("batch", "compute_scores")])
@pytest.mark.parametrize(
    ("kwargs", "rewards"),
    [
        ({}, [1.0, 0.33, 0.33, 0.0]),
        ({"verifier": "strict_format"}, [1.0, 1.0, 1.0, -0.5]),
        ({"mix": {"acc": 0.5, "format": 0.25}}, [0.75, 0.25, 0.25, 0.0]),
    ],
)
def test_rewards_and_verdicts(kind: str, name: str, kwargs: dict[str, Any], rewards: list[float]) -> None:
    tensor, extra = compute_reward(data(), manager(kind, name, **kwargs))
    assert tensor.sum(dim=1).tolist() == pytest.approx(rewards)
    assert [int(row.nonzero()[0]) for row in tensor[:3]] == [len(text) - 1 for text in RESPONSES[:3]]
    assert extra["verdict"] == ["correct", "wrong", "unparseable", "no_answer"]
    assert extra["acc"] == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("kind", "name"), [("naive", "compute_score"), ("batch", "compute_scores")])
def test_an_unknown_reward_stops_the_run(kind: str, name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown reward 'r2'; known are acc"):
        compute_reward(data(), manager(kind, name, verifier="r2"))


@pytest.mark.parametrize(("kind", "name"), [("naive", "compute_score"), ("batch", "compute_scores")])
@pytest.mark.parametrize(("kwargs", "verdict"), [({}, "copied"), ({"refuse_copied": False}, "correct")])
def test_the_problem_of_the_data_set_reaches_the_reward(
    kind: str, name: str, kwargs: dict[str, Any], verdict: str
) -> None:
    batch = data()
    responses = batch.batch["responses"]
    text = "<think></think><answer>\\boxed{x+x}</answer>"
    responses[0, :] = torch.tensor([*map(ord, text), *[ord(" ")] * (responses.shape[1] - len(text))])
    batch.non_tensor_batch["reward_model"][0] = {"style": "rule", "ground_truth": "2x"}
    batch.non_tensor_batch["extra_info"][0] = {"index": 0, "problem": "What is $x+x$?"}
    _, extra = compute_reward(batch, manager(kind, name, **kwargs))
    assert extra["verdict"][0] == verdict and "copied" not in extra["verdict"][1:]
