# SPDX-License-Identifier: Apache-2.0
"""A tiny model of each kind: its files, its classes, and its weights to Megatron-core and back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from recipe.tiny import build
from recipe.tiny.build import TinyModel, build_model, random_model, save_model
from recipe.tiny.cli import main
from recipe.tiny.config import tiny_config, tiny_fields
from recipe.tiny.hugging_face import model_class
from recipe.tiny.members import DEEPSEEK_V3, LLAMA, MEMBERS, MOONLIGHT, QWEN2, QWEN3, QWEN3_MOE
from recipe.tiny.sizes import LEGAL, SMALLEST
from recipe.tiny.warm_start import WarmStart
from recipe.weights import mcore_to_hf
from recipe.weights.convert import convert
from tests.exactness import hugging_face

ARCHITECTURES = {
    DEEPSEEK_V3: "DeepseekV3ForCausalLM",
    MOONLIGHT: "DeepseekV3ForCausalLM",
    QWEN3_MOE: "Qwen3MoeForCausalLM",
    QWEN3: "Qwen3ForCausalLM",
    QWEN2: "Qwen2ForCausalLM",
    LLAMA: "LlamaForCausalLM",
}


@pytest.mark.parametrize("member", MEMBERS)
def test_weights_go_to_megatron_and_back_byte_for_byte(member: str, tmp_path: Path) -> None:
    model = random_model(seed=3, member=member)
    (tmp_path / "hf").mkdir()
    save_model(model, tmp_path / "hf")
    convert(tmp_path / "hf", tmp_path / "mcore")
    assert mcore_to_hf.main(["--load-dir", str(tmp_path / "mcore"), "--save-dir", str(tmp_path / "back")]) == 0
    before, after = (load_file(next((tmp_path / name).glob("*.safetensors"))) for name in ("hf", "back"))
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert after[name].dtype == tensor.dtype, name
        assert torch.equal(after[name].view(torch.uint8), tensor.view(torch.uint8)), name


@pytest.mark.parametrize("member", MEMBERS)
def test_what_is_saved_is_what_was_built(member: str, tmp_path: Path) -> None:
    model = random_model(seed=3, member=member)
    save_model(model, tmp_path)
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.architectures == [ARCHITECTURES[member]] == [type(model).__name__]
    stored = load_file(tmp_path / "model.safetensors")
    assert ("lm_head.weight" in stored) is not config.tie_word_embeddings
    loaded = model_class(config).from_pretrained(tmp_path, torch_dtype=torch.float32)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.bfloat16().float() if "bias" not in name else tensor), name


def test_members_differ_in_what_the_families_differ_in() -> None:
    names = {member: {*random_model(0, member=member).state_dict()} for member in MEMBERS}

    def has(member: str, end: str) -> bool:
        return any(name.endswith(end) for name in names[member])

    assert [member for member in MEMBERS if has(member, "q_proj.bias")] == [QWEN2]
    assert [member for member in MEMBERS if has(member, "q_norm.weight")] == [QWEN3_MOE, QWEN3]
    assert [member for member in MEMBERS if has(member, "experts.0.up_proj.weight")] == [
        DEEPSEEK_V3, MOONLIGHT, QWEN3_MOE
    ]  # fmt: skip
    assert [member for member in MEMBERS if has(member, "shared_experts.up_proj.weight")] == [DEEPSEEK_V3, MOONLIGHT]
    assert [member for member in MEMBERS if has(member, "q_a_proj.weight")] == [DEEPSEEK_V3]
    assert [member for member in MEMBERS if tiny_config(member=member).tie_word_embeddings] == [QWEN2]


def test_queries_without_a_latent_are_those_of_a_latent_that_changes_nothing() -> None:
    """The library's own attention with q_b_proj times q_a_proj as the one matrix, and a norm that does nothing."""
    plain = random_model(seed=1, member=MOONLIGHT, num_hidden_layers=2).eval()
    hidden = plain.config.hidden_size
    latent = random_model(seed=2, member=MOONLIGHT, num_hidden_layers=2, q_lora_rank=hidden).eval()
    state = {name: tensor for name, tensor in plain.state_dict().items() if "q_proj" not in name}
    with torch.no_grad():
        for number, layer in enumerate(plain.model.layers):
            to = f"model.layers.{number}.self_attn."
            state[to + "q_a_proj.weight"] = torch.eye(hidden)
            state[to + "q_b_proj.weight"] = layer.self_attn.q_proj.weight
            state[to + "q_a_layernorm.weight"] = torch.ones(hidden)
        latent.load_state_dict(state)
        for layer in latent.model.layers:
            layer.self_attn.q_a_layernorm = torch.nn.Identity()
        tokens = torch.randint(5, 600, (2, 9), generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(plain(tokens).logits, latent(tokens).logits)


def test_it_is_warmed_up_and_measured(tmp_path: Path) -> None:
    hugging_face.restore()  # this process may have imported verl
    settings = TinyModel(member=QWEN2, warm_start=WarmStart(steps=2, batch=4))
    record = build_model(settings, tmp_path / "tiny", lambda _: None)
    assert record["settings"]["member"] == QWEN2 and record["steps"] == 2
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert config["model_type"] == QWEN2
    assert settings.fingerprint() != replace(settings, member=LLAMA).fingerprint()


def test_the_member_is_chosen_by_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TinyModel] = []
    monkeypatch.setattr(build, "build_model", lambda settings, *_: asked.append(settings))
    assert main(["--out", str(tmp_path), "--member", LLAMA]) == 0
    assert asked == [TinyModel(member=LLAMA)]
    assert main(["--fp8", "--out", str(tmp_path), "--member", LLAMA]) == 2


def test_sizes_that_a_member_does_not_have_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="there is no tiny model 'gpt2'; there are deepseek_v3, moonlight"):
        tiny_fields(SMALLEST, "gpt2")
    assert main(["--out", str(tmp_path / "tiny"), "--member", QWEN3, "--sizes", LEGAL]) == 2
    assert capsys.readouterr().err == (
        "error: the tiny qwen3 has no sizes 'legal'; take 'smallest', or the member 'deepseek_v3'\n"
    )
    assert not (tmp_path / "tiny").exists()
