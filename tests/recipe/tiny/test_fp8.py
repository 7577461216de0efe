# SPDX-License-Identifier: Apache-2.0
"""The FP8 checkpoint: the published names, dtypes and files; a tokenizer; whole or not at all."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from recipe.tiny import fp8
from recipe.tiny.cli import main
from recipe.tiny.config import Fp8Model
from recipe.tiny.fp8 import make_fp8_model
from recipe.weights.cast import plan_cast
from recipe.weights.job import run_job

MODEL = Fp8Model(layers=2, experts=4, shard_bytes=1_000_000)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fp8") / "model"
    make_fp8_model(MODEL, out, lambda _: None)
    return out


def loaded(directory: Path) -> dict[str, torch.Tensor]:
    return {name: t for file in sorted(directory.glob("*.safetensors")) for name, t in load_file(file).items()}


def test_tensors_are_those_of_the_published_checkpoint(made: Path) -> None:
    tensors = loaded(made)
    index = json.loads((made / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(tensors) and len(set(index["weight_map"].values())) >= 4
    quantised = {name for name, tensor in tensors.items() if tensor.dtype == torch.float8_e4m3fn}
    assert {name + "_scale_inv" for name in quantised} == {name for name in tensors if name.endswith("_scale_inv")}
    for name in quantised:
        blocks = tuple(math.ceil(size / 128) for size in tensors[name].shape)
        scale = tensors[name + "_scale_inv"]
        assert (scale.dtype, tuple(scale.shape)) == (torch.float32, blocks)
        assert (scale > 0).all() and tensors[name].float().isfinite().all()
    assert "model.layers.1.mlp.experts.3.down_proj.weight" in quantised
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.gate.weight"}.isdisjoint(quantised)
    assert tensors["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == torch.float32
    assert {"model.layers.2.eh_proj.weight", "model.layers.2.shared_head.head.weight"} <= set(tensors)
    raw = np.concatenate([tensors[name].view(torch.uint8).numpy().ravel() for name in sorted(quantised)])
    assert len(np.unique(raw)) == 254, "every finite byte of e4m3"


def test_configuration_and_tokenizer(made: Path) -> None:
    config = json.loads((made / "config.json").read_text())
    assert config["quantization_config"]["weight_block_size"] == [128, 128]
    assert config["num_nextn_predict_layers"] == 1 and config["rope_scaling"]["type"] == "yarn"
    assert AutoConfig.from_pretrained(made).num_hidden_layers == 2
    assert len(AutoTokenizer.from_pretrained(made)) <= config["vocab_size"]


def test_cast_it_is_a_model_that_computes(made: Path, tmp_path: Path) -> None:
    run_job(plan_cast(made, tmp_path / "bf16").job)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "bf16", torch_dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.arange(5, 15)[None]).logits
    assert logits.isfinite().all() and 0.01 < logits.std() < 100


def test_seeds_and_sizes(made: Path, tmp_path: Path) -> None:
    make_fp8_model(MODEL, tmp_path / "same", lambda _: None)
    assert all(path.read_bytes() == (made / path.name).read_bytes() for path in (tmp_path / "same").iterdir())
    sizes = "--layers", "1", "--dense-layers", "1", "--vocabulary", "1280", "--seed", "3"
    assert main(["--fp8", "--out", str(tmp_path / "other"), *sizes]) == 0
    other = loaded(tmp_path / "other")
    assert other["lm_head.weight"].shape == (1280, 256)
    assert not torch.equal(other["model.norm.weight"], loaded(made)["model.norm.weight"])


def test_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(fp8, "_fill", fail)
    assert main(["--fp8", "--out", str(tmp_path / "out")]) == 2
    assert "No space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis.txt").write_text("years of work")
    assert main(["--fp8", "--out", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options", [["--layers", "2"], ["--fp8", "--warm-start-steps", "3"], ["--fp8", "--problems", "x"]]
)
def test_options_of_the_other_kind_are_refused(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path / "out"), *options]) == 2
    assert "error: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
