# SPDX-License-Identifier: Apache-2.0
"""The converted checkpoint read back with torch's own reader: every element in its place, under every name."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.metadata import BytesStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from recipe.weights import cli, plan, torch_dist
from recipe.weights.convert import convert, plan_conversion
from recipe.weights.errors import WeightsError


def read_back(directory: Path) -> dict[str, Any]:
    state: dict[str, Any] = {}
    reader = FileSystemReader(directory)
    _load_state_dict(state, storage_reader=reader, planner=_EmptyStateDictLoadPlanner(), no_dist=True)
    return state


def flat(state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in state.items():
        out |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return out


def check_contents(directory: Path, weights: dict[str, torch.Tensor]) -> None:
    got = flat(read_back(directory))

    def gate_up(at: str) -> torch.Tensor:
        return torch.cat([weights[at + "gate_proj.weight"], weights[at + "up_proj.weight"]])

    experts = [f"model.layers.1.mlp.experts.{e}." for e in range(4)]
    expected = {
        "output_layer.weight": weights["lm_head.weight"],
        "decoder.layers.0.mlp.linear_fc1.weight": gate_up("model.layers.0.mlp."),
        "decoder.layers.0.mlp.linear_fc1.layer_norm_weight": weights["model.layers.0.post_attention_layernorm.weight"],
        "decoder.layers.0.pre_mlp_layernorm.weight": weights["model.layers.0.post_attention_layernorm.weight"],
        "decoder.layers.1.pre_mlp_layernorm.weight": weights["model.layers.1.post_attention_layernorm.weight"],
        "decoder.layers.1.self_attention.q_layernorm.weight": weights["model.layers.1.self_attn.q_a_layernorm.weight"],
        "decoder.layers.1.self_attention.linear_q_up_proj.layer_norm_weight": (
            weights["model.layers.1.self_attn.q_a_layernorm.weight"]
        ),
        "decoder.layers.1.mlp.router.expert_bias": weights["model.layers.1.mlp.gate.e_score_correction_bias"],
        "decoder.layers.1.mlp.shared_experts.linear_fc1.weight": gate_up("model.layers.1.mlp.shared_experts."),
        "decoder.layers.1.mlp.experts.experts.linear_fc1.weight": torch.stack([gate_up(at) for at in experts]),
        "decoder.layers.1.mlp.experts.experts.linear_fc2.weight": torch.stack(
            [weights[at + "down_proj.weight"] for at in experts]
        ),
    }
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("shards", [1, 3])
def test_every_element_is_in_its_place(hf: Any, shards: int, dtype: torch.dtype, tmp_path: Path) -> None:
    weights = hf.tensors(dtype)
    hf.write(tmp_path / "hf", weights, shards)
    convert(tmp_path / "hf", tmp_path / "out")
    check_contents(tmp_path / "out", weights)


def test_small_pieces_and_many_files_change_nothing(
    hf: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors cut into rows and spread over files by two workers, as a large model's are."""
    monkeypatch.setattr(plan, "PIECE_BYTES", 40)
    monkeypatch.setattr(plan, "FILE_BYTES", 700)
    made = convert(source, tmp_path / "out", workers=2)
    assert len(made.files) > 3 and made.pieces > 2 * len(hf.tensors(torch.bfloat16))
    check_contents(tmp_path / "out", hf.tensors(torch.bfloat16))
    convert(source, tmp_path / "again", workers=1)
    for file in sorted((tmp_path / "out").glob("__*")):
        assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()


def test_extra_states_and_sizes(source: Path, tmp_path: Path) -> None:
    made = convert(source, tmp_path / "out")
    entries = FileSystemReader(tmp_path / "out").read_metadata().state_dict_metadata
    states = {name for name, entry in entries.items() if isinstance(entry, BytesStorageMetadata)}
    assert states == set(made.extra_states)
    assert {
        "decoder.layers.0.mlp.linear_fc2._extra_state/shard_0_1",
        "decoder.layers.1.self_attention.linear_q_down_proj._extra_state/shard_0_1",
        "decoder.layers.1.mlp.experts.experts.linear_fc1._extra_state/shard_3_4",
    } <= states
    assert json.loads((tmp_path / "out" / "metadata.json").read_text())["sharded_backend"] == "torch_dist"
    assert torch.load(tmp_path / "out" / "common.pt", weights_only=True) == {}
    on_disk = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert on_disk <= torch_dist.bytes_needed(made) <= on_disk + 60_000


def test_left_behind_are_the_prediction_layers_and_rotary_buffers(hf: Any, tmp_path: Path) -> None:
    weights = hf.tensors(torch.bfloat16)
    weights["model.layers.2.eh_proj.weight"] = torch.zeros(8, 16)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(1)
    hf.write(tmp_path / "hf", weights)
    made = convert(tmp_path / "hf", tmp_path / "out")
    assert made.dropped == ("model.layers.0.self_attn.rotary_emb.inv_freq", "model.layers.2.eh_proj.weight")


def damage(hf: Any, directory: Path, kind: str) -> None:
    """Spoil a good two-shard checkpoint in one way."""
    first = directory / "model-00001-of-00002.safetensors"
    index = directory / "model.safetensors.index.json"
    config = json.loads((directory / "config.json").read_text())
    weights = hf.tensors(torch.bfloat16)
    if kind == "missing shard":
        first.unlink()
    elif kind == "truncated":
        os.truncate(first, first.stat().st_size - 1)
    elif kind == "cut in the header":
        os.truncate(first, 40)
    elif kind == "empty":
        first.write_bytes(b"")
    elif kind == "corrupt header":
        raw = bytearray(first.read_bytes())
        raw[8] = ord("x")
        first.write_bytes(raw)
    elif kind == "lying header":
        (length,) = struct.unpack("<Q", first.read_bytes()[:8])
        raw = first.read_bytes()
        head = json.loads(raw[8 : 8 + length])
        name = "lm_head.weight"
        head[name]["shape"] = [23, 8]
        text = json.dumps(head, separators=(",", ":")).encode()
        first.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    elif kind == "no config":
        (directory / "config.json").unlink()
    else:
        changed = {
            "missing tensor": lambda: weights.pop("model.layers.1.mlp.experts.2.up_proj.weight"),
            "wrong shape": lambda: weights.update({"model.norm.weight": torch.zeros(9)}),
            "fp8 tensor": lambda: weights.update({"model.norm.weight": torch.zeros(8).to(torch.float8_e4m3fn)}),
            "unknown tensor": lambda: weights.update({"model.layers.0.mlp.bias": torch.zeros(8)}),
            "mixed dtypes": lambda: weights.update({"model.layers.0.mlp.gate_proj.weight": torch.zeros(12, 8)}),
            "other model": lambda: config.update(model_type="gemma"),
            "tied": lambda: config.update(tie_word_embeddings=True),
            "no size": lambda: config.pop("kv_lora_rank"),
            "quantised": lambda: config.update(quantization_config={"quant_method": "fp8"}),
            "stale index": lambda: None,
            "index out of the directory": lambda: None,
            "duplicate": lambda: None,
        }
        changed[kind]()
        shutil.rmtree(directory)
        hf.write(directory, weights)
        (directory / "config.json").write_text(json.dumps(config))
        listed = json.loads(index.read_text())
        if kind == "stale index":
            listed["weight_map"]["model.gone.weight"] = first.name
        elif kind == "index out of the directory":
            listed["weight_map"]["model.norm.weight"] = "../hf/" + first.name
        elif kind == "duplicate":
            save_file({"lm_head.weight": weights["lm_head.weight"]}, directory / "model-00003-of-00002.safetensors")
            listed["weight_map"]["model.norm.weight"] = "model-00003-of-00002.safetensors"
        index.write_text(json.dumps(listed))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing shard", ["model-00001-of-00002.safetensors", "cannot be read"]),
        ("truncated", ["model-00001-of-00002.safetensors", "truncated", "model.norm.weight"]),
        ("cut in the header", ["model-00001-of-00002.safetensors", "header claims"]),
        ("empty", ["model-00001-of-00002.safetensors", "0 bytes"]),
        ("corrupt header", ["model-00001-of-00002.safetensors", "corrupt header"]),
        ("lying header", ["lm_head.weight", "takes 368 bytes", "gives it 384"]),
        ("no config", ["config.json", "No such file"]),
        ("missing tensor", ["model.layers.1.mlp.experts.2.up_proj.weight", "no tensor"]),
        ("wrong shape", ["model.norm.weight", "[9]", "[8]"]),
        ("fp8 tensor", ["model.norm.weight", "F8_E4M3", "BF16"]),
        ("unknown tensor", ["model.layers.0.mlp.bias", "no place"]),
        ("mixed dtypes", ["decoder.layers.0.mlp.linear_fc1.weight", "BF16", "F32"]),
        ("other model", ["config.json", "gemma", "deepseek_v3"]),
        ("tied", ["config.json", "tie_word_embeddings"]),
        ("no size", ["config.json", "kv_lora_rank"]),
        ("quantised", ["quantization_config"]),
        ("stale index", ["index.json", "model.gone.weight"]),
        ("index out of the directory", ["index.json", "outside"]),
        ("duplicate", ["lm_head.weight", "is also in"]),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    hf: Any, kind: str, said: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(hf, source, kind)
    assert cli.main(["--load-dir", str(source), "--save-dir", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in said), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


@pytest.mark.parametrize("where", ["hf", "hf/mcore", "."])
def test_refuses_an_output_in_or_around_the_input(where: str, source: Path, tmp_path: Path) -> None:
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    with pytest.raises(WeightsError, match="must lie beside the input"):
        convert(source, tmp_path / where, overwrite=True)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


def test_replaces_only_a_checkpoint_and_only_when_asked(hf: Any, source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(source, out)
    with pytest.raises(WeightsError, match="exists already"):
        convert(source, out)
    convert(source, out, overwrite=True)
    check_contents(out, hf.tensors(torch.bfloat16))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(WeightsError, match="is not a Megatron checkpoint"):
        convert(source, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_refuses_what_the_disk_cannot_hold(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = dataclasses.make_dataclass("Usage", ["total", "used", "free"])(10, 9, 1)
    monkeypatch.setattr(torch_dist.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match="has 1 free"):
        convert(source, tmp_path / "out")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_source_that_shrinks_while_it_is_read(
    workers: int, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "FILE_BYTES", 700)
    _, made = plan_conversion(source)
    last = source / "model-00002-of-00002.safetensors"
    os.truncate(last, last.stat().st_size - 5)
    with pytest.raises(WeightsError, match=r"model-00002-of-00002.safetensors: .* ended \d+ bytes too early"):
        torch_dist.write(made, tmp_path / "out", workers=workers)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_killed_in_the_middle_leaves_nothing_that_loads(hf: Any, source: Path, tmp_path: Path) -> None:
    """The process dies before `.metadata`: no directory of the output's name, and the partial one is not loadable."""
    code = (
        "import os, sys, pathlib\n"
        "from recipe.weights import torch_dist, convert\n"
        "torch_dist._metadata = lambda *a: os.kill(os.getpid(), 9)\n"
        f"convert.convert(pathlib.Path({str(source)!r}), pathlib.Path({str(tmp_path / 'out')!r}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    (partial,) = tmp_path.glob(".out.partial-*")
    assert not (tmp_path / "out").exists()
    assert not (partial / ".metadata").exists()
    convert(source, tmp_path / "out")
    check_contents(tmp_path / "out", hf.tensors(torch.bfloat16))


def test_dry_run_says_what_it_would_do_and_writes_nothing(
    hf: Any, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--load-dir", str(source), "--save-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"{len(hf.tensors(torch.bfloat16))} tensors" in said and "bytes of disk" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_both_command_lines_convert(hf: Any, source: Path, tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[3]
    script = [str(root / "scripts" / "convert_hf_to_mcore.py")]
    for number, command in enumerate((script, ["-m", "recipe", "weights"])):
        out = tmp_path / f"out{number}"
        done = subprocess.run(
            [sys.executable, *command, "--load-dir", str(source), "--save-dir", str(out)],
            cwd=root, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        check_contents(out, hf.tensors(torch.bfloat16))
