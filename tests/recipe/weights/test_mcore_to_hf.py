# SPDX-License-Identifier: Apache-2.0
"""There and back again: Hugging Face -> Megatron -> Hugging Face gives the same bytes; what is amiss is one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipe.weights import mcore_to_hf, torch_dist
from recipe.weights.convert import convert
from recipe.weights.errors import WeightsError
from recipe.weights.mcore_to_hf import main
from recipe.weights.workspace import MANIFEST


def tensors(directory: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in directory.glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_same(tensors: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].dtype == tensor.dtype, name
        assert torch.equal(tensors[name].view(torch.uint8), tensor.contiguous().view(torch.uint8)), name


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir() if file.name != MANIFEST}


@pytest.fixture
def command(source: Path, tmp_path: Path) -> list[str]:
    """Of a checkpoint made from `source` in small pieces and several files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch_dist, "PIECE_BYTES", 40)
        patch.setattr(torch_dist, "FILE_BYTES", 700)
        convert(source, tmp_path / "mcore")
    return ["--load-dir", str(tmp_path / "mcore"), "--save-dir", str(tmp_path / "back"), "--hf-config", str(source)]


def test_there_and_back(hf: Any, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every byte of every tensor; and what comes back, taken there and back once more, is the same files."""
    monkeypatch.setattr(mcore_to_hf, "SHARD_BYTES", 1200)
    hf.write(tmp_path / "hf", hf.tensors(dtype), shards=3)
    (tmp_path / "hf" / "tokenizer.json").write_text("{}")
    for source, target, back in (("hf", "m1", "b1"), ("b1", "m2", "b2")):
        convert(tmp_path / source, tmp_path / target)
        arguments = ["--load-dir", str(tmp_path / target), "--save-dir", str(tmp_path / back)]
        assert main([*arguments, "--hf-config", str(tmp_path / source), "--verify"]) == 0
    assert_same(tensors(tmp_path / "b1"), hf.tensors(dtype))
    files = contents(tmp_path / "b1")
    assert files == contents(tmp_path / "b2")
    assert len([name for name in files if name.endswith(".safetensors")]) > 2
    assert files["tokenizer.json"] == b"{}"
    config = json.loads(files["config.json"])
    assert config["torch_dtype"] == {torch.bfloat16: "bfloat16", torch.float32: "float32"}[dtype]
    index = json.loads(files["model.safetensors.index.json"])
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in hf.tensors(dtype).values())
    assert index["weight_map"].keys() == hf.tensors(dtype).keys()


def test_a_dense_model_with_grouped_queries(tmp_path: Path) -> None:
    """Queries, keys and values leave linear_qkv again, biases too; a tied head stays away."""
    config = {
        "model_type": "qwen2", "vocab_size": 16, "hidden_size": 12, "intermediate_size": 10, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 4, "max_position_embeddings": 64,
        "tie_word_embeddings": True,
    }  # fmt: skip
    generator = torch.Generator().manual_seed(2)
    shapes = {"model.embed_tokens.weight": (16, 12), "model.norm.weight": (12,)}
    for n in range(3):
        at = f"model.layers.{n}."
        shapes |= {at + "input_layernorm.weight": (12,), at + "post_attention_layernorm.weight": (12,)}
        shapes |= {at + f"self_attn.{k}_proj.weight": (size, 12) for k, size in (("q", 24), ("k", 8), ("v", 8))}
        shapes |= {at + f"self_attn.{k}_proj.bias": (size,) for k, size in (("q", 24), ("k", 8), ("v", 8))}
        shapes |= {at + "self_attn.o_proj.weight": (12, 24), at + "mlp.down_proj.weight": (12, 10)}
        shapes |= {at + f"mlp.{k}_proj.weight": (10, 12) for k in ("gate", "up")}
    weights = {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}
    (tmp_path / "hf").mkdir()
    head = {"lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    save_file(weights | head, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config))
    convert(tmp_path / "hf", tmp_path / "mcore")
    arguments = ["--load-dir", str(tmp_path / "mcore"), "--save-dir", str(tmp_path / "back")]
    assert main([*arguments, "--hf-config", str(tmp_path / "hf")]) == 0
    assert_same(tensors(tmp_path / "back"), weights)
    head["lm_head.weight"][7, 3] += 1
    save_file(weights | head, tmp_path / "hf" / "model.safetensors")
    with pytest.raises(WeightsError, match=r"lm_head.weight differs from model.safetensors: model.embed_tokens.weight"):
        convert(tmp_path / "hf", tmp_path / "other")


def test_a_rerun_does_nothing_and_a_changed_checkpoint_refuses(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command) == 0
    before = contents(tmp_path / "back")
    assert main(command) == 0
    assert "complete already" in capsys.readouterr().out
    os.utime(tmp_path / "mcore" / "__1_0.distcp", ns=(1, 1))
    assert main(command) == 2
    assert "other input or options" in capsys.readouterr().err
    assert contents(tmp_path / "back") == before


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("no file", ["__1_0.distcp", "cannot be read"]),
        ("short file", ["__1_0.distcp", "has 100 bytes"]),
        ("no metadata", [".metadata", "is missing"]),
        ("overwritten", ["__1_0.distcp", "no torch.save archive of one tensor", "decoder.layers."]),
        ("fewer layers", ["decoder.layers.1", "which the model of config.json does not have"]),
        ("more layers", ["holds no decoder.layers.2.input_layernorm.weight"]),
        ("other width", ["is [24, 8]", "makes it [32, 8]"]),
        ("no config", ["config.json"]),
        ("no hf config", ["--hf-config"]),
        ("no checkpoint", ["mcore: no such directory; expected a Megatron checkpoint"]),
        ("inside", ["must lie beside the input"]),
        ("around the config", ["choose another output"]),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    damage: str, words: list[str], command: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, config = tmp_path / "mcore" / "__1_0.distcp", source / "config.json"
    if damage == "no file":
        file.unlink()
    elif damage == "short file":
        os.truncate(file, 100)
    elif damage == "no metadata":
        (tmp_path / "mcore" / ".metadata").unlink()
    elif damage == "overwritten":
        file.write_bytes(b"\0" * file.stat().st_size)
    elif damage == "no config":
        config.unlink()
    elif damage == "no hf config":
        command = command[:-2]
        shutil.rmtree(tmp_path / "mcore" / "huggingface")
    elif damage == "no checkpoint":
        command = command[:-2]
        shutil.rmtree(tmp_path / "mcore")
    elif damage == "inside":
        command[3] = str(tmp_path / "mcore" / "hf")
    elif damage == "around the config":
        command[3] = str(source)
    else:
        changed = {"fewer layers": ("num_hidden_layers", 1), "more layers": ("num_hidden_layers", 3)}
        key, value = changed.get(damage, ("vocab_size", 32))
        config.write_text(json.dumps(json.loads(config.read_text()) | {key: value}))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()
    assert [line for line in error if not line.startswith("written")] == error[-1:], error
    assert error[-1].startswith("error: ") and all(word in error[-1] for word in words), error
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}.keys() == before.keys()


def test_the_script_needs_no_torch(command: list[str], hf: Any, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    code = (
        "import sys, runpy\n"
        f"sys.argv[1:] = {command!r}\n"
        f"try: runpy.run_path({str(root / 'scripts' / 'convert_mcore_to_hf.py')!r}, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True, env=environment)
    assert_same(tensors(tmp_path / "back"), hf.tensors(torch.bfloat16))
