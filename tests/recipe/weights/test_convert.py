# SPDX-License-Identifier: Apache-2.0
"""The converted checkpoint read back with torch's own reader: every element in its place, under every name."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import _EmptyStateDictLoadPlanner
from torch.distributed.checkpoint.metadata import BytesStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict

from recipe.weights import torch_dist
from recipe.weights.convert import convert, main
from recipe.weights.errors import WeightsError
from recipe.weights.job import run_job
from recipe.weights.workspace import MANIFEST

NORM = "model.norm.weight"
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}


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
    monkeypatch.setattr(torch_dist, "PIECE_BYTES", 40)
    monkeypatch.setattr(torch_dist, "FILE_BYTES", 700)
    files = torch_dist.plan(source, tmp_path / "out").job.files
    assert len(files) > 3 and sum(len(file.parts) for file in files) > 2 * len(hf.tensors(torch.bfloat16))
    convert(source, tmp_path / "out", workers=2)
    check_contents(tmp_path / "out", hf.tensors(torch.bfloat16))
    convert(source, tmp_path / "again", workers=1)
    assert contents(tmp_path / "again") == contents(tmp_path / "out")


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def quantise(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The checkpoint with its projections in FP8 as published, and the bfloat16 tensors that makes, by definition."""
    generator = torch.Generator().manual_seed(1)
    stored, expected = dict(weights), dict(weights)
    for name, tensor in weights.items():
        if "_proj" in name:
            small = tensor.float().mul(40).to(torch.float8_e4m3fn)
            scale = torch.rand((1, 1), generator=generator)
            stored |= {name: small, name + "_scale_inv": scale}
            expected[name] = (small.float() * scale).to(torch.bfloat16)
    return stored, expected


def test_fp8_is_dequantised_on_the_way(hf: Any, tmp_path: Path) -> None:
    """No bfloat16 checkpoint in between, and a scale may lie in another file than its tensor."""
    stored, expected = quantise(hf.tensors(torch.bfloat16))
    hf.write(tmp_path / "fp8", stored, shards=3, quantization_config=FP8)
    hf.write(tmp_path / "bf16", expected, shards=3)
    convert(tmp_path / "fp8", tmp_path / "out")
    check_contents(tmp_path / "out", expected)
    convert(tmp_path / "bf16", tmp_path / "same")
    for file in ("common.pt", "metadata.json"):
        assert (tmp_path / "out" / file).read_bytes() == (tmp_path / "same" / file).read_bytes()
    from_fp8, from_bf16 = flat(read_back(tmp_path / "out")), flat(read_back(tmp_path / "same"))
    assert from_fp8.keys() == from_bf16.keys()
    assert all(
        torch.equal(from_fp8[name], from_bf16[name]) for name in from_fp8 if isinstance(from_fp8[name], torch.Tensor)
    )


def test_extra_states_and_sizes(source: Path, tmp_path: Path) -> None:
    """The plan knows to the byte what it will take; the states are those that a module with one asks for."""
    job = torch_dist.plan(source, tmp_path / "out").job
    convert(source, tmp_path / "out")
    metadata = FileSystemReader(tmp_path / "out").read_metadata()
    entries = metadata.state_dict_metadata
    assert all(info.offset % 64 == 0 for info in metadata.storage_data.values())
    states = {name for name, entry in entries.items() if isinstance(entry, BytesStorageMetadata)}
    at = "decoder.layers.1."
    assert states >= {
        "decoder.layers.0.mlp.linear_fc2._extra_state/shard_0_1",
        at + "self_attention.linear_q_down_proj._extra_state/shard_0_1",
        at + "self_attention.core_attention._extra_state/shard_0_1",
        at + "self_attention.q_layernorm._extra_state/shard_0_1",
        at + "mlp.experts.experts.linear_fc1._extra_state/shard_3_4",
        "decoder.final_layernorm._extra_state/shard_0_1",
    }
    assert torch.load(tmp_path / "out" / "common.pt", weights_only=True) == {}
    assert torch.load(tmp_path / "out" / "__extra_state_0.distcp", weights_only=True) == [None]
    on_disk = sum(len(content) for name, content in contents(tmp_path / "out").items() if name != MANIFEST)
    assert on_disk == job.nbytes + job.small_bytes


def test_the_archives_cost_next_to_nothing() -> None:
    """At the real sizes: an expert's matrix, a norm and what goes with it, in one part in two thousand."""
    layer = [((2048, 7168), 256 * 3), ((7168,), 2), ((24576, 1536), 1), ((32768, 512), 1), ((7168, 16384), 4)]
    content = overhead = 0
    for shape, count in layer:
        nbytes = 2 * math.prod(shape)
        content += count * nbytes
        overhead += count * (torch_dist._archive("BF16", (1, *shape), nbytes)[1] - nbytes + 64)
    assert overhead <= 0.0005 * content


def test_what_the_rollout_needs_of_a_hugging_face_directory_comes_along(hf: Any, tmp_path: Path) -> None:
    stored, _ = quantise(hf.tensors(torch.bfloat16))
    hf.write(tmp_path / "fp8", stored, shards=2, quantization_config=FP8, num_nextn_predict_layers=1)
    (tmp_path / "fp8" / "tokenizer.json").write_text("{}")
    convert(tmp_path / "fp8", tmp_path / "out")
    before, after = (json.loads((tmp_path / at / "config.json").read_text()) for at in ("fp8", "out/huggingface"))
    assert before.pop("quantization_config") == FP8
    assert after == before | {"num_nextn_predict_layers": 0, "torch_dtype": "bfloat16"}
    assert sorted(file.name for file in (tmp_path / "out" / "huggingface").iterdir()) == [
        "config.json",
        "tokenizer.json",
    ]


def test_left_behind_are_the_prediction_layer_and_rotary_buffers(
    hf: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = hf.tensors(torch.bfloat16)
    weights["model.layers.2.eh_proj.weight"] = torch.zeros(8, 16)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(1)
    hf.write(tmp_path / "hf", weights)
    assert main(["--load-dir", str(tmp_path / "hf"), "--save-dir", str(tmp_path / "out")]) == 0
    assert "2 tensors left behind" in capsys.readouterr().out
    check_contents(tmp_path / "out", hf.tensors(torch.bfloat16))


def damage(hf: Any, directory: Path, kind: str) -> None:
    """Spoil a good two-shard checkpoint in one way; test_bad_input.py has those that every tool shares."""
    first, index = directory / "model-00001-of-00002.safetensors", directory / "model.safetensors.index.json"
    config = json.loads((directory / "config.json").read_text())
    weights = hf.tensors(torch.bfloat16)
    if kind == "empty":
        first.write_bytes(b"")
    elif kind == "lying header":
        raw = first.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        head = json.loads(raw[8 : 8 + length])
        head["lm_head.weight"]["shape"] = [23, 8]
        text = json.dumps(head, separators=(",", ":")).encode()
        first.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    elif kind == "no config":
        (directory / "config.json").unlink()
    elif kind == "index out of the directory":
        listed = json.loads(index.read_text())
        listed["weight_map"]["model.norm.weight"] = "../hf/" + first.name
        index.write_text(json.dumps(listed))
    else:
        changed = {
            "other numbers": lambda: weights.update({NORM: torch.zeros(8, dtype=torch.int32)}),
            "a layer too many": lambda: weights.update({"model.layers.3.eh_proj.weight": torch.zeros(8)}),
            "other model": lambda: config.update(model_type="gemma"),
            "no size": lambda: config.pop("kv_lora_rank"),
        }
        changed[kind]()
        shutil.rmtree(directory)
        hf.write(directory, weights)
        (directory / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("empty", ["model-00001-of-00002.safetensors", "0 bytes"]),
        ("lying header", ["lm_head.weight", "takes 368 bytes", "gives it 384"]),
        ("no config", ["config.json", "No such file"]),
        ("index out of the directory", ["index.json", "outside"]),
        ("other numbers", ["model.norm.weight", "I32"]),
        ("a layer too many", ["model.layers.3.eh_proj.weight", "no place"]),
        ("other model", ["config.json", "gemma", "deepseek_v3", "qwen2"]),
        ("no size", ["config.json", "kv_lora_rank"]),
    ],
)
def test_bad_input_gets_one_line_and_leaves_nothing(
    hf: Any, kind: str, words: list[str], source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(hf, source, kind)
    assert main(["--load-dir", str(source), "--save-dir", str(tmp_path / "out")]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1
    assert all(word in err for word in words), err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_a_rerun_does_nothing_and_over_other_input_refuses(
    hf: Any, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["--load-dir", str(source), "--save-dir", str(tmp_path / "out")]
    assert main(command) == 0
    before = contents(tmp_path / "out")
    assert main(command) == 0
    assert "complete already" in capsys.readouterr().out
    config = source / "config.json"
    config.write_text(config.read_text().replace('"v_head_dim": 5', '"v_head_dim": 5, "rope_theta": 7'))
    assert main(command) == 2
    assert "other input or options" in capsys.readouterr().err
    assert contents(tmp_path / "out") == before
    assert main([*command, "--overwrite"]) == 0
    check_contents(tmp_path / "out", hf.tensors(torch.bfloat16))


def test_verify_finds_one_changed_byte(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--load-dir", str(source), "--save-dir", str(tmp_path / "out"), "--verify"]
    assert main(command) == 0
    raw = bytearray((tmp_path / "out" / "__0_0.distcp").read_bytes())
    raw[raw.rindex(b"PK\x07\x08") - 3] ^= 1  # within the last tensor
    (tmp_path / "out" / "__0_0.distcp").write_bytes(raw)
    capsys.readouterr()
    assert main(command) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "__0_0.distcp" in error and "model." in error and "differs" in error


def test_a_source_that_shrinks_while_it_is_read(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = torch_dist.plan(source, tmp_path / "out").job
    last = source / "model-00002-of-00002.safetensors"
    os.truncate(last, last.stat().st_size - 5)
    with pytest.raises(WeightsError, match=r"model-00002-of-00002.safetensors: .* ended \d+ bytes too early"):
        run_job(job)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf"]


def test_killed_before_the_metadata_nothing_loads_and_the_rerun_gives_the_same(source: Path, tmp_path: Path) -> None:
    code = (
        "import os, pathlib\n"
        "from recipe.weights import convert, torch_dist, workspace\n"
        "move = workspace.Workspace._move\n"
        "def killed(self, name):\n"
        "    os.kill(os.getpid(), 9) if name == '.metadata' else move(self, name)\n"
        "workspace.Workspace._move = killed\n"
        "torch_dist.FILE_BYTES = 700\n"
        f"convert.convert(pathlib.Path({str(source)!r}), pathlib.Path({str(tmp_path / 'out')!r}))\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert (tmp_path / "out" / "__0_0.distcp").exists() and not (tmp_path / "out" / ".metadata").exists()
    with pytest.raises(CheckpointException, match="metadata"):
        read_back(tmp_path / "out")
    rest = code.replace("move(self, name)", "0").replace("workspace.Workspace._move = killed", "")
    subprocess.run([sys.executable, "-c", rest], timeout=60, check=True)
    clean = rest.replace(str(tmp_path / "out"), str(tmp_path / "clean"))
    subprocess.run([sys.executable, "-c", clean], timeout=60, check=True)
    assert contents(tmp_path / "out") == contents(tmp_path / "clean")


def test_no_torch_is_imported(source: Path, tmp_path: Path) -> None:
    """It would be most of the memory; the archives and the metadata are written by hand for that."""
    code = (
        "import sys, pathlib\n"
        "from recipe.weights import convert\n"
        f"assert convert.main(['--load-dir', {str(source)!r}, '--save-dir', {str(tmp_path / 'out')!r}]) == 0\n"
        "assert 'torch' not in sys.modules\n"
    )
    environment = {**os.environ, "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True, env=environment)


def test_layouts_are_for_the_legacy_format(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--load-dir", str(source), "--save-dir", str(tmp_path / "out"), "--target-tensor-parallel-size", "2"]
    assert main(command) == 2
    assert "--target-tensor-parallel-size: for --format legacy only" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_dry_run_says_what_it_would_do_and_writes_nothing(
    hf: Any, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--load-dir", str(source), "--save-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert f"{len(hf.tensors(torch.bfloat16))} tensors" in output and "bytes needed" in output and "layers" in output
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
