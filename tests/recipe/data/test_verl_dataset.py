# SPDX-License-Identifier: Apache-2.0
"""verl's own dataset and reward manager take what we write, with the token ids that the warm start trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from recipe.data.cli import main
from recipe.data.templates import get_template
from recipe.tiny.arithmetic import Sum
from recipe.tiny.tokenizer import save_tokenizer
from recipe.tiny.warm_start import prompt_ids

SUMS = [Sum(1, 2), Sum(13, 18), Sum(10, 7)]


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data")
    source = path / "sums.json"
    source.write_text(json.dumps([item.problem() for item in SUMS]))
    assert main(["--json_path", str(source), "--output_dir", str(path), "--train_data_ratio", "0.7"]) == 0
    save_tokenizer(path)
    return path


def test_rlhf_dataset_reads_it_into_the_warm_starts_prompts(parquet: Path) -> None:
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset

    tokenizer = AutoTokenizer.from_pretrained(parquet)
    config = {"max_prompt_length": 16, "filter_overlong_prompts_workers": 1, "cache_dir": str(parquet / "cache")}
    dataset = RLHFDataset(str(parquet / "train.parquet"), tokenizer, OmegaConf.create(config))
    assert len(dataset) == 2
    for place in range(2):
        row = dataset[place]
        item = SUMS[row["index"]]
        ids = prompt_ids(item, get_template("r1_zero"), tokenizer)
        assert row["raw_prompt_ids"] == ids
        assert row["input_ids"].tolist() == [tokenizer.pad_token_id] * (16 - len(ids)) + ids
        assert row["reward_model"] == {"style": "rule", "ground_truth": str(item.value)}


RECORDS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "What is 1 + {}?", "answer": "so #### {}"},
    "math_lighteval": {"problem": "What is 1 + {}?", "solution": "so $\\boxed{{{}}}$"},
    "dapo17k": {"prompt": "What is 1 + {}?", "reward_model": {"ground_truth": "{}"}},
}


def filled(schema: dict[str, Any], place: int) -> str:
    """The record of the problem ``1 + place``."""
    problem, answer = schema
    value = schema[answer]
    truth = (
        {key: text.format(1 + place) for key, text in value.items()}
        if isinstance(value, dict)
        else value.format(1 + place)
    )
    return json.dumps({problem: schema[problem].format(place), answer: truth})


@pytest.mark.parametrize("form", RECORDS)
@pytest.mark.parametrize("template", ["plain", "boxed_cot", "answer_line"])
def test_formats_and_templates_reach_verls_dataset_and_its_own_rewards(
    parquet: Path, tmp_path: Path, form: str, template: str
) -> None:
    from omegaconf import OmegaConf
    from verl.utils.dataset.rl_dataset import RLHFDataset
    from verl.utils.reward_score import default_compute_score

    source = tmp_path / "in.jsonl"
    source.write_text("\n".join(filled(RECORDS[form], place) for place in range(6)))
    arguments = ["--json_path", str(source), "--output_dir", str(tmp_path), "--format", form, "--template", template]
    assert main([*arguments, "--tokenizer", str(parquet), "--max-prompt-tokens", "512"]) == 0
    tokenizer = AutoTokenizer.from_pretrained(parquet)
    config = {"max_prompt_length": 512, "filter_overlong_prompts_workers": 1, "cache_dir": str(tmp_path / "cache")}
    dataset = RLHFDataset(str(tmp_path / "train.parquet"), tokenizer, OmegaConf.create(config))
    assert len(dataset) == 5
    for place in range(5):
        row = dataset[place]
        index = row["extra_info"]["index"]
        messages = get_template(template).messages(f"What is 1 + {index}?")
        assert row["raw_prompt_ids"] == tokenizer.apply_chat_template(messages, add_generation_prompt=True)
        truth = row["reward_model"]["ground_truth"]
        assert truth == str(1 + index)
        for answer, right in ((truth, True), ("77", False)):
            response = f"Work.\nAnswer: {answer}" if form == "dapo17k" else f"Work. #### {answer} $\\boxed{{{answer}}}$"
            score = default_compute_score(row["data_source"], response, truth, row["extra_info"])
            score = score["score"] if isinstance(score, dict) else score
            assert (score > 0) == right


def test_custom_reward_function_is_found_and_called(parquet: Path) -> None:
    import numpy as np
    import torch
    from omegaconf import OmegaConf
    from verl import DataProto
    from verl.trainer.ppo.reward import load_reward_manager

    tokenizer = AutoTokenizer.from_pretrained(parquet)
    reward_file = Path(__file__).parents[3] / "verl_patches" / "utils" / "reward_score" / "r1_zero.py"
    config = {
        "reward_model": {"reward_manager": "naive"},
        "custom_reward_function": {"path": str(reward_file), "name": "compute_score"},
        "data": {"reward_fn_key": "data_source"},
    }
    manager = load_reward_manager(OmegaConf.create(config), tokenizer, num_examine=0)
    texts = [SUMS[1].worked, "<think></think><answer>\\boxed{5}</answer>"]
    prompt = prompt_ids(SUMS[1], get_template("r1_zero"), tokenizer)
    responses = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in texts]
    longest = max(map(len, responses))
    padded = [ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids in responses]
    mask = [[1] * (len(prompt) + len(ids)) + [0] * (longest - len(ids)) for ids in responses]
    data = DataProto.from_dict(
        tensors={
            "prompts": torch.tensor([prompt, prompt]),
            "responses": torch.tensor(padded),
            "attention_mask": torch.tensor(mask),
        },
        non_tensors={
            "reward_model": np.array([{"style": "rule", "ground_truth": "31"}] * 2, dtype=object),
            "data_source": np.array(["deepscaler"] * 2, dtype=object),
            "extra_info": np.array([{}, {}], dtype=object),
        },
    )
    result = manager(data, return_dict=True)
    assert result["reward_tensor"].sum(dim=1).tolist() == pytest.approx([1.0, 0.33])
    assert result["reward_tensor"][1, len(responses[1]) - 1].item() == pytest.approx(0.33)
    assert result["reward_extra_info"]["acc"] == [1.0, 0.0]
