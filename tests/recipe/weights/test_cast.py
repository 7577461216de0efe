# SPDX-License-Identifier: Apache-2.0
"""The cast to bfloat16: the published algorithm's bits, a directory that other tools load, bad input in one line."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from recipe.tiny.config import Fp8Model
from recipe.tiny.fp8 import make_fp8_model
from recipe.weights import convert, fp8, mcore_to_hf
from recipe.weights.cast_cli import main
from recipe.weights.hf_checkpoint import INDEX_NAME
from recipe.weights.workspace import MANIFEST
from tests.recipe.weights.tools import nothing_published

CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "some_mixture", "num_hidden_layers": 2,
    "num_nextn_predict_layers": 1, "torch_dtype": "float16", "rope_theta": 10000,
    "quantization_config": {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
    },
}  # fmt: skip
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
O_PROJ, KV_A = "model.layers.0.self_attn.o_proj.weight", "model.layers.1.self_attn.kv_a_proj_with_mqa.weight"
MTP = "model.layers.2.self_attn.o_proj.weight"
Tensors = dict[str, torch.Tensor]


def quantised(name: str, rows: int, columns: int, seed: int) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    raw = torch.randint(0, 256, (rows, columns), dtype=torch.uint8, generator=generator)
    raw[(raw & 0x7F) == 0x7F] = 0x30
    scale = torch.rand(fp8.scale_shape((rows, columns)), generator=generator) * 1e-3
    return {name: raw.view(torch.float8_e4m3fn), name + "_scale_inv": scale}


@pytest.fixture
def shards() -> dict[str, Tensors]:
    """Two shards; 576 rows end in half a block, and the scales of one tensor lie in the other file."""
    first = {
        "model.embed_tokens.weight": torch.randn(24, 64).bfloat16(),
        **quantised(O_PROJ, 256, 300, 1),
        "model.layers.1.mlp.gate.e_score_correction_bias": torch.randn(7),
    }
    second = {
        "model.norm.weight": torch.randn(64).bfloat16(),
        **quantised(KV_A, 576, 256, 2),
        **quantised(MTP, 128, 128, 3),
        "model.layers.2.embed_tokens.weight": torch.randn(24, 64).bfloat16(),
    }
    first[KV_A + "_scale_inv"] = second.pop(KV_A + "_scale_inv")
    return {FIRST: first, SECOND: second}


def write(directory: Path, shards: dict[str, Tensors], config: dict[str, Any] = CONFIG) -> None:
    directory.mkdir(exist_ok=True)
    for file, tensors in shards.items():
        save_file(tensors, directory / file)
    weight_map = {name: file for file, tensors in shards.items() for name in tensors}
    (directory / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text('{"model": "é"}')
    (directory / "modeling_deepseek.py").write_text("# code")
    (directory / ".git").mkdir(exist_ok=True)


def reference(tensors: Tensors) -> Tensors:
    """What DeepSeek's script makes: float32 of the byte times its block's scale, rounded to bfloat16 by torch."""
    out = {}
    for name, tensor in tensors.items():
        if name.endswith("_scale_inv"):
            continue
        if name + "_scale_inv" in tensors:
            scale = tensors[name + "_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
            tensor = (tensor.float() * scale[: tensor.shape[0], : tensor.shape[1]]).to(torch.bfloat16)
        out[name] = tensor
    return out


def loaded(directory: Path) -> Tensors:
    """Every tensor that the index lists, by the safetensors library."""
    index = json.loads((directory / INDEX_NAME).read_text())
    files = {file: load_file(directory / file) for file in set(index["weight_map"].values())}
    assert sum(map(len, files.values())) == len(index["weight_map"])
    return {name: files[file][name] for name, file in index["weight_map"].items()}


def bits(tensors: Tensors) -> dict[str, tuple[Any, ...]]:
    return {name: (t.dtype, tuple(t.shape), t.view(torch.uint8).numpy().tobytes()) for name, t in tensors.items()}


def cast(directory: Path, *options: str) -> int:
    paths = ["--input-fp8-hf-path", str(directory / "in"), "--output-bf16-hf-path", str(directory / "out")]
    return main([*paths, *options])


@pytest.mark.parametrize("keep", [False, True])
def test_gives_the_bits_of_the_published_algorithm(keep: bool, shards: dict[str, Tensors], tmp_path: Path) -> None:
    write(tmp_path / "in", shards)
    assert cast(tmp_path, "--verify", *(["--keep-mtp"] if keep else [])) == 0
    expected = reference({**shards[FIRST], **shards[SECOND]})
    if not keep:
        expected = {name: t for name, t in expected.items() if not name.startswith("model.layers.2.")}
    assert bits(loaded(tmp_path / "out")) == bits(expected)


def test_the_directory_is_a_plain_bf16_checkpoint(shards: dict[str, Tensors], tmp_path: Path) -> None:
    write(tmp_path / "in", shards)
    assert cast(tmp_path) == 0
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        FIRST, SECOND, INDEX_NAME, MANIFEST, "config.json", "tokenizer.json", "modeling_deepseek.py",
    }  # fmt: skip
    config = json.loads((out / "config.json").read_text())
    assert "quantization_config" not in config
    assert (config["num_nextn_predict_layers"], config["torch_dtype"], config["rope_theta"]) == (0, "bfloat16", 10000)
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "in" / "tokenizer.json").read_bytes()
    index = json.loads((out / INDEX_NAME).read_text())
    assert not any(name.endswith("_scale_inv") for name in index["weight_map"])
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in loaded(out).values())
    with safe_open(out / FIRST, "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert file.get_slice("model.layers.1.mlp.gate.e_score_correction_bias").get_dtype() == "F32"


def test_keeps_the_prediction_layer_and_its_setting(shards: dict[str, Tensors], tmp_path: Path) -> None:
    write(tmp_path / "in", shards)
    assert cast(tmp_path, "--keep-mtp") == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_nextn_predict_layers"] == 1
    assert MTP in loaded(tmp_path / "out")


def test_what_is_left_without_the_shards_of_the_prediction_layer_is_whole(tmp_path: Path) -> None:
    """The published model's last shards hold that layer alone, so the cast has fewer files than their names count."""
    small = Fp8Model(
        hidden_size=128, layers=2, experts=2, intermediate_size=128, moe_intermediate_size=128, heads=2, q_rank=64,
        kv_rank=64, shard_bytes=40_000,
    )  # fmt: skip
    make_fp8_model(small, tmp_path / "in", lambda _: None)
    assert cast(tmp_path) == 0
    files = len(list((tmp_path / "out").glob("*.safetensors")))
    assert 1 < files < len(list((tmp_path / "in").glob("*.safetensors")))
    convert.convert(tmp_path / "out", tmp_path / "mcore")
    assert mcore_to_hf.main(["--load-dir", str(tmp_path / "mcore"), "--save-dir", str(tmp_path / "back")]) == 0
    assert bits(loaded(tmp_path / "back")) == bits(loaded(tmp_path / "out"))


def test_large_tensors_start_on_a_page(shards: dict[str, Tensors], tmp_path: Path) -> None:
    write(tmp_path / "in", shards)
    assert cast(tmp_path) == 0
    raw = (tmp_path / "out" / SECOND).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    begin = json.loads(raw[8 : 8 + length])[KV_A]["data_offsets"][0]
    assert (8 + length + begin) % 4096 == 0


def change(directory: Path, file: str, at: Callable[[dict[str, Any], int], None]) -> None:
    """Let `at` change the header of a shard (and learn where the data begins)."""
    raw = (directory / file).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    at(header, 8 + length)
    text = json.dumps(header).encode()
    (directory / file).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def overlap(header: dict[str, Any], _: int) -> None:
    begin = header["model.norm.weight"]["data_offsets"]
    entry = header["model.layers.2.embed_tokens.weight"]
    size = entry["data_offsets"][1] - entry["data_offsets"][0]
    entry["data_offsets"] = [begin[0], begin[0] + size]


def spoil(kind: str, directory: Path, shards: dict[str, Tensors]) -> None:
    """Write the checkpoint to `directory` with one thing wrong."""
    first, second, config = dict(shards[FIRST]), dict(shards[SECOND]), dict(CONFIG)
    if kind == "no scale":
        del first[O_PROJ + "_scale_inv"]
    elif kind == "scale alone":
        del first[O_PROJ]
    elif kind == "scale of bf16":
        first[O_PROJ] = first[O_PROJ].float().bfloat16()
    elif kind == "scale shape":
        second[MTP + "_scale_inv"] = torch.ones(1, 2)
    elif kind == "scale dtype":
        second[MTP + "_scale_inv"] = torch.ones(1, 1).double()
    elif kind == "scale nan":
        first[O_PROJ + "_scale_inv"][1, 2] = float("nan")
    elif kind == "vector":
        second |= {"model.x": torch.zeros(4).to(torch.float8_e4m3fn), "model.x_scale_inv": torch.ones(1)}
    elif kind == "nan 7f":
        first[O_PROJ].view(torch.uint8)[200, 299] = 0x7F
    elif kind == "nan ff":
        second[KV_A].view(torch.uint8)[575, 0] = 0xFF
    elif kind == "twice":
        second["model.embed_tokens.weight"] = first["model.embed_tokens.weight"]
    elif kind == "block size":
        config["quantization_config"] = {**CONFIG["quantization_config"], "weight_block_size": [64, 64]}
    elif kind == "other method":
        config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    elif kind == "layers":
        config["num_hidden_layers"] = 1
    elif kind == "nothing":
        whole = {**first, **second}
        first, second = ({name: t for name, t in reference(whole).items() if name in part} for part in (first, second))
    write(directory, {FIRST: first, SECOND: second}, config)
    if kind == "missing shard":
        (directory / SECOND).unlink()
    elif kind == "truncated":
        os.truncate(directory / FIRST, (directory / FIRST).stat().st_size - 1)
    elif kind == "header":
        raw = bytearray((directory / FIRST).read_bytes())
        raw[20] = 0xFF
        (directory / FIRST).write_bytes(raw)
    elif kind == "header length":
        (directory / FIRST).write_bytes(struct.pack("<Q", 2**60) + b"{}")
    elif kind == "overlap":
        change(directory, SECOND, overlap)
    elif kind == "index":
        index = json.loads((directory / INDEX_NAME).read_text())
        index["weight_map"]["model.gone.weight"] = FIRST
        (directory / INDEX_NAME).write_text(json.dumps(index))
    elif kind == "no input":
        for path in directory.iterdir():
            if path.is_file():
                path.unlink()


BAD = [
    ("no scale", [FIRST, O_PROJ, "no shard holds its scales"]),
    ("scale alone", [FIRST, O_PROJ + "_scale_inv", "no shard holds"]),
    ("scale of bf16", [FIRST, O_PROJ, "which is BF16"]),
    ("scale shape", [SECOND, MTP, "F32 [1, 2]", "[1, 1] of F32"]),
    ("scale dtype", [SECOND, MTP, "F64 [1, 1]", "[1, 1] of F32"]),
    ("scale nan", [FIRST, O_PROJ + "_scale_inv", "nan at [1, 2]"]),
    ("vector", [SECOND, "model.x", "FP8 [4]"]),
    ("nan 7f", [FIRST, O_PROJ, "NaN (byte 0x7F) at [200, 299]"]),
    ("nan ff", [SECOND, KV_A, "NaN (byte 0xFF) at [575, 0]"]),
    ("twice", [SECOND, "model.embed_tokens.weight is also in", FIRST]),
    ("block size", ["config.json", "weight_block_size [64, 64]", "[128, 128]"]),
    ("other method", ["config.json", "quant_method 'gptq'"]),
    ("layers", [SECOND, "model.layers.2.", "1 layers and 1 for multi-token prediction"]),
    ("nothing", ["no FP8 tensor"]),
    ("missing shard", [SECOND, "cannot be read"]),
    ("truncated", [FIRST, "truncated", "model."]),
    ("header", [FIRST, "corrupt header"]),
    ("header length", [FIRST, "header claims"]),
    ("overlap", [SECOND, "share bytes"]),
    ("index", [INDEX_NAME, "model.gone.weight", FIRST]),
    ("no input", ["config.json", "No such file"]),
]


@pytest.mark.parametrize(("kind", "words"), BAD, ids=[kind for kind, _ in BAD])
def test_bad_input_gets_one_line_and_leaves_nothing(
    kind: str, words: list[str], shards: dict[str, Tensors], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(kind, tmp_path / "in", shards)
    assert cast(tmp_path) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("written:")]
    assert len(err) == 1 and err[0].startswith("error: ")
    assert all(word in err[0] for word in words), err
    assert nothing_published(tmp_path / "out")


def test_a_name_twice_in_one_header(shards: dict[str, Tensors], tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "in", shards)
    file = tmp_path / "in" / SECOND
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].rstrip()
    doubled = header[:-1] + b',"model.norm.weight":{"dtype":"BF16","shape":[64],"data_offsets":[0,128]}}'
    file.write_bytes(struct.pack("<Q", len(doubled)) + doubled + raw[8 + length :])
    assert cast(tmp_path) == 2
    assert "model.norm.weight stands there twice" in capsys.readouterr().err


def test_dry_run_prints_the_plan_and_writes_nothing(shards: dict[str, Tensors], tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "in", shards)
    assert cast(tmp_path, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "2 files" in lines[0] and "7 tensors" in lines[0]
    assert any("multi-token prediction" in line and "2 tensors" in line for line in lines)
    table = {line.split()[0]: line.split()[1:] for line in lines if line.startswith(" ")}
    assert table["0"] == ["1", str(256 * 300 * 2)] and table["1"] == ["2", str(576 * 256 * 2 + 7 * 4)]
    assert lines[-1].startswith("disk: ")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("option", [[], ["--dry-run"]])
def test_refuses_what_the_disk_cannot_hold(
    option: list[str], shards: dict[str, Tensors], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", shards)
    monkeypatch.setattr("recipe.weights.report.free_bytes", lambda output: 1000)
    assert cast(tmp_path, *option) == 2
    assert "1000 free; make room" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_other_input_and_other_options_are_refused(shards: dict[str, Tensors], tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "in", shards)
    assert cast(tmp_path) == 0
    assert cast(tmp_path) == 0
    assert "complete already" in capsys.readouterr().out
    assert cast(tmp_path, "--keep-mtp") == 2
    assert "made from other input or options" in capsys.readouterr().err
    shards[FIRST]["model.embed_tokens.weight"] += 1
    write(tmp_path / "in", shards)
    assert cast(tmp_path) == 2
    assert cast(tmp_path, "--overwrite") == 0
    embedding = loaded(tmp_path / "out")["model.embed_tokens.weight"]
    assert torch.equal(embedding, shards[FIRST]["model.embed_tokens.weight"])


def test_verify_alone_finds_a_changed_bit(shards: dict[str, Tensors], tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "in", shards)
    assert cast(tmp_path) == 0
    assert cast(tmp_path, "--verify") == 0
    assert "every byte is what the input gives" in capsys.readouterr().out
    file = tmp_path / "out" / SECOND
    raw = bytearray(file.read_bytes())
    raw[4096 + 99] ^= 1
    file.write_bytes(raw)
    assert cast(tmp_path, "--verify") == 2
    assert f"{SECOND}: byte 4195 ({KV_A}) differs" in capsys.readouterr().err


def test_no_workers(shards: dict[str, Tensors], tmp_path: Path, capsys: Any) -> None:
    write(tmp_path / "in", shards)
    assert cast(tmp_path, "--workers", "0") == 2
    assert "at least one" in capsys.readouterr().err
