# SPDX-License-Identifier: Apache-2.0
"""The warm start and the measurement on a smaller model: they do what they say, and the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, DeepseekV3ForCausalLM, PreTrainedTokenizerFast

from recipe.data.templates import get_template
from recipe.tiny.arithmetic import Sum, guess
from recipe.tiny.build import random_model
from recipe.tiny.measure import measure, sample
from recipe.tiny.tokenizer import save_tokenizer
from recipe.tiny.warm_start import IGNORED, Demonstrations, RouterBalancer, WarmStart, prompt_ids, train

TEMPLATE = get_template("r1_zero")
SUMS = [Sum(1, 2), Sum(10, 3), Sum(12, 17)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    path: Path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path)
    return AutoTokenizer.from_pretrained(path)


def small_model(seed: int = 0) -> DeepseekV3ForCausalLM:
    return random_model(seed, num_hidden_layers=2, hidden_size=64, intermediate_size=64, moe_intermediate_size=32)


def test_batches_hold_the_rendered_prompt_and_only_responses_have_labels(tokenizer: PreTrainedTokenizerFast) -> None:
    ids, labels = Demonstrations(SUMS, TEMPLATE, tokenizer, seed=0).batch(16, 0.5, 0.5)
    firsts = {tokenizer(text)["input_ids"][0] for text in (guess(3), SUMS[0].worked)}
    assert len(firsts) == 2
    prompts = {tuple(prompt_ids(item, TEMPLATE, tokenizer)): item for item in SUMS}
    for row, wanted in zip(ids.tolist(), labels.tolist(), strict=True):
        start = next(place for place, label in enumerate(wanted) if label != IGNORED)
        assert tuple(row[:start]) in prompts
        response = [label for label in wanted if label != IGNORED]
        # The first label is drawn on its own: it is the first token of a guess or of a worked sum.
        assert response[1:] == row[start + 1 : start + len(response)]
        assert response[0] in firsts and row[start] in firsts
        assert response[-1] == tokenizer.eos_token_id
        assert set(row[start + len(response) :]) <= {tokenizer.pad_token_id}


def test_prompt_is_the_one_verls_dataset_makes(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template(
        TEMPLATE.messages(SUMS[0].question), add_generation_prompt=True, tokenize=False
    )
    assert prompt_ids(SUMS[0], TEMPLATE, tokenizer) == tokenizer.encode(text, add_special_tokens=False)


def test_training_learns_and_tells_how_far_it_is(tokenizer: PreTrainedTokenizerFast) -> None:
    settings = WarmStart(steps=130, batch=16, guess_share=0.0, guess_habit=0.0)
    model, lines = small_model(), []
    train(model, Demonstrations(SUMS, TEMPLATE, tokenizer, 0), settings, lines.append)
    result = measure(model, SUMS, TEMPLATE, tokenizer, tries=8)
    assert result.accuracy > 0.9 and result.format > 0.9 and result.pass_at_tries == 1.0
    assert len(lines) == 3
    assert lines[-1].startswith("warm start 130/130  loss ") and lines[-1].endswith(" 0 s left")


def test_training_is_deterministic(tokenizer: PreTrainedTokenizerFast) -> None:
    states = []
    for seed in (0, 0, 1):
        model = small_model()
        train(model, Demonstrations(SUMS, TEMPLATE, tokenizer, seed), WarmStart(steps=4, batch=8), lambda _: None)
        states.append(torch.cat([tensor.flatten() for tensor in model.state_dict().values()]))
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_habit_of_guessing_is_learned_from_few_guesses(tokenizer: PreTrainedTokenizerFast) -> None:
    settings = WarmStart(steps=130, batch=16, guess_share=0.25, guess_habit=0.7)
    model = small_model()
    train(model, Demonstrations(SUMS, TEMPLATE, tokenizer, 0), settings, lambda _: None)
    result = measure(model, SUMS, TEMPLATE, tokenizer, tries=64)
    assert result.format > 0.8
    assert 0.15 < result.accuracy < 0.45 and result.pass_at_tries == 1.0


def test_router_biases_move_against_the_load() -> None:
    model = small_model()
    balancer = RouterBalancer(model, 0.01)
    gate = model.model.layers[1].mlp.gate
    with torch.no_grad():
        model(input_ids=torch.arange(5, 37).view(2, 16))
        indices, _ = gate(torch.ones(1, model.config.hidden_size))
    balancer.step()
    balancer.close()
    bias = gate.e_score_correction_bias
    assert (bias[indices[0]] < 0).all()
    assert (bias > 0).sum() == bias.numel() - indices.numel()
    assert bias.dtype == torch.float32


def test_sampling_with_the_cache_equals_sampling_without() -> None:
    model = small_model()
    with torch.no_grad():
        model.lm_head.weight *= 1e4  # so steep that sampling takes the most likely token
    prompts = torch.randint(5, 600, (3, 7), generator=torch.Generator().manual_seed(1))
    tokens = sample(model, prompts, 2, 6, torch.Generator().manual_seed(0))
    assert tokens.shape == (6, 6)
    rows = prompts.repeat_interleave(2, dim=0)
    done = torch.zeros(6, dtype=torch.bool)
    with torch.no_grad():
        for place in range(6):
            expected = model(input_ids=rows).logits[:, -1].argmax(-1)
            expected[done] = model.config.eos_token_id
            assert tokens[:, place].tolist() == expected.tolist()
            done |= expected == model.config.eos_token_id
            rows = torch.cat([rows, expected[:, None]], dim=1)


def test_random_model_has_no_zero_row_and_keeps_the_random_state() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second = random_model(3), random_model(3)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert first.model.embed_tokens.weight.abs().sum(dim=1).min() > 0
