# SPDX-License-Identifier: Apache-2.0
"""The model directory: its content, its reuse, and what a failure leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from recipe.data.parquet import convert
from recipe.data.templates import get_template
from recipe.models.families import describe
from recipe.tiny import build
from recipe.tiny.build import TinyModel, build_model, write_problems
from recipe.tiny.cli import main
from recipe.tiny.config import tiny_fields
from recipe.tiny.sizes import LEGAL, SMALLEST
from recipe.tiny.warm_start import WARM_STARTS, WarmStart

QUICK = TinyModel(warm_start=WarmStart(steps=2, batch=4))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "tiny"
    build_model(QUICK, out, lambda _: None)
    return out


def test_directory_is_a_plain_hugging_face_model(built: Path) -> None:
    config = AutoConfig.from_pretrained(built, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(built, torch_dtype=torch.float32, trust_remote_code=False)
    tokenizer = AutoTokenizer.from_pretrained(built, trust_remote_code=False)
    assert config.architectures == ["DeepseekV3ForCausalLM"] and config.vocab_size == len(tokenizer)
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert 0.8e6 < sum(parameter.numel() for parameter in model.parameters()) < 1.1e6
    assert {path.name for path in built.iterdir()} == {
        *("config.json", "generation_config.json", "model.safetensors", "tiny.json"),
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    }


def test_configuration_is_what_the_upstreams_take(built: Path) -> None:
    config = json.loads((built / "config.json").read_text())
    assert config["num_nextn_predict_layers"] == 0 and "quantization_config" not in config
    assert config["topk_method"] == "noaux_tc" and config["scoring_func"] == "sigmoid" and config["n_group"] == 1
    rope = config["rope_scaling"]
    assert rope["type"] == "yarn"
    assert config["max_position_embeddings"] == rope["factor"] * rope["original_max_position_embeddings"] >= 1024
    assert config["tie_word_embeddings"] is False and config["torch_dtype"] == "bfloat16"


def test_the_legal_model_has_the_heads_and_experts_of_the_published_one() -> None:
    legal, smallest = (describe(tiny_fields(sizes)) for sizes in (LEGAL, SMALLEST))
    assert legal.as_published and not smallest.as_published
    # What npu_fused_infer_attention_score takes of a latent of 512.
    assert legal.heads in (32, 64, 128)
    widths = (legal.hidden, legal.q_lora_rank, legal.dense_intermediate, legal.moe_intermediate)
    assert all(width % 16 == 0 for width in widths), "whole blocks of 32 bytes"


def test_the_sizes_are_chosen_by_an_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[TinyModel] = []
    monkeypatch.setattr(build, "build_model", lambda settings, *_: asked.append(settings))
    for options in ([], ["--sizes", "smallest"], ["--sizes", "legal"], ["--sizes", "legal", "--warm-start-steps", "3"]):
        assert main(["--out", str(tmp_path), *options]) == 0
    default, smallest, legal, shortened = asked
    assert default == smallest == TinyModel()
    assert legal == TinyModel(sizes=LEGAL, warm_start=WARM_STARTS[LEGAL])
    assert shortened.warm_start == replace(WARM_STARTS[LEGAL], steps=3)
    assert main(["--fp8", "--out", str(tmp_path), "--sizes", "legal"]) == 2


def test_weights_are_bf16_and_router_biases_fp32(built: Path) -> None:
    tensors = load_file(built / "model.safetensors")
    biases = {name for name in tensors if name.endswith("e_score_correction_bias")}
    assert len(biases) == 3
    assert all(tensors[name].dtype == torch.float32 and tensors[name].abs().max() > 0 for name in biases)
    assert {tensor.dtype for name, tensor in tensors.items() if name not in biases} == {torch.bfloat16}


def test_record_tells_how_it_was_made(built: Path) -> None:
    record = json.loads((built / "tiny.json").read_text())
    assert record["settings"]["seed"] == 0 and record["steps"] == 2
    assert 0 <= record["accuracy"] <= record["pass_at_tries"] <= 1


def test_same_settings_are_reused_and_others_are_not(built: Path, tmp_path: Path) -> None:
    out, lines = tmp_path / "tiny", []
    first = build_model(QUICK, out, lines.append)
    weights = (out / "model.safetensors").read_bytes()
    assert weights == (built / "model.safetensors").read_bytes()
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    assert build_model(QUICK, out, lines.append) == first
    assert "up to date" in lines[-1] and (out / "model.safetensors").stat().st_mtime_ns == stamp
    build_model(replace(QUICK, seed=1), out, lines.append)
    assert (out / "model.safetensors").read_bytes() != weights
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_foreign_directory_is_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["--out", str(tmp_path), "--warm-start-steps", "0"]) == 2
    assert "is no tiny model" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("kind", [["--warm-start-steps", "0"], ["--fp8"]])
def test_a_place_that_cannot_be_written_to(kind: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "model"
    assert main(["--out", str(out), *kind]) == 2
    assert capsys.readouterr().err == f"error: {out} cannot be written: File exists ({out.parent})\n"


def test_failure_leaves_the_old_model_and_no_half_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "tiny"
    out.mkdir()
    (out / "tiny.json").write_text('{"fingerprint": "old"}')

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build, "train", stop)
    with pytest.raises(KeyboardInterrupt):
        build_model(QUICK, out, lambda _: None)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]
    assert json.loads((out / "tiny.json").read_text()) == {"fingerprint": "old"}


def test_problems_go_through_the_data_room(tmp_path: Path) -> None:
    train, validation = write_problems(QUICK, tmp_path)
    summary = convert(train, tmp_path / "parquet", get_template("r1_zero"), test_json_path=validation)
    assert (summary.train, summary.test, summary.dropped.total) == (168, 42, 0)
