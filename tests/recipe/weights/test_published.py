# SPDX-License-Identifier: Apache-2.0
"""The plan for the published 671B model, from its names and shapes alone, beside the arithmetic of docs/WEIGHTS.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from recipe.tiny import published
from recipe.weights import cast_cli, convert
from recipe.weights.hf_checkpoint import open_checkpoint

LEGACY = [
    "--format", "legacy", "--target-tensor-parallel-size", "4", "--target-pipeline-parallel-size", "8",
    "--target-expert-parallel-size", "8", "--num-layer-list", "7,7,8,8,8,8,8,7", "--moe-tp-extend-ep",
    "--moe-grouped-gemm", "--first-k-dense-replace", "3", "--num-layers", "61",
]  # fmt: skip
# Bytes: what huggingface.co lists for the files of DeepSeek-V3 (headers included), and the tensors of the first 61
# layers in FP8 with scales, in bfloat16, and once for each of the ranks that hold them.
PUBLISHED_FILES = 688_586_727_753
FP8_IN = 673_150_611_808
BF16_OUT = 1_342_052_868_096
LEGACY_OUT = {8: 1_631_185_010_688, 32: 2_601_287_417_856}
# Of archive wrappers, headers and padding, in the outputs.
OVERHEAD = 5e-4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("published") / "DeepSeek-V3-671B"
    assert published.main([str(directory)]) == 0
    return directory


def test_the_sizes_are_those_of_the_published_files(model: Path) -> None:
    """To 0.01 per mille: the headers' spelling is the only difference. And it takes no disk."""
    files = list(model.glob("*.safetensors"))
    assert abs(sum(file.stat().st_size for file in files) - PUBLISHED_FILES) < 10_000
    assert sum(file.stat().st_blocks * 512 for file in files) < 30_000_000
    tensors = open_checkpoint(model).tensors
    assert tensors["model.layers.3.mlp.experts.255.down_proj.weight_scale_inv"].shape == (56, 16)
    assert tensors["model.layers.60.self_attn.kv_a_proj_with_mqa.weight"].shape == (576, 7168)
    assert tensors["model.layers.61.eh_proj.weight"].dtype == "BF16"


def planned(main: Callable[[list[str]], int], arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Bytes in and out of a dry run, which this machine's disk is too small for."""
    assert main([*arguments, "--dry-run"]) == 2
    captured = capsys.readouterr()
    assert "make room" in captured.err and captured.err.count("\n") == 1
    lines = captured.out.splitlines()
    rows = [line.split() for line in lines if line.startswith(" ")]
    # Three dense layers alike, 58 mixture layers alike.
    assert [row[0] for row in rows] == ["layers", "outside", "0-2", "3-60", "all"]
    assert int(rows[1][2]) + 3 * int(rows[2][2]) + 58 * int(rows[3][2]) == int(rows[4][2])
    return [int(number) for number in re.findall(r"(\d+) bytes", lines[0])]


def close(nbytes: int, expected: int) -> bool:
    return 0 <= nbytes - expected < expected * OVERHEAD


def test_cast(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--input-fp8-hf-path", str(model), "--output-bf16-hf-path", str(tmp_path / "out")]
    read, written = planned(cast_cli.main, arguments, capsys)
    assert read == FP8_IN and close(written, BF16_OUT)


def test_torch_dist(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--load-dir", str(model), "--save-dir", str(tmp_path / "out")]
    read, written = planned(convert.main, arguments, capsys)
    assert read == FP8_IN and close(written, BF16_OUT)


def test_legacy(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--load-dir", str(model), "--save-dir", str(tmp_path / "out"), *LEGACY]
    read, written = planned(convert.main, arguments, capsys)
    assert read == FP8_IN and close(written, LEGACY_OUT[8])


def test_legacy_bytes_from_the_sizes_alone() -> None:
    """The figure of docs/WEIGHTS.md by hand: what every expert-parallel rank repeats, and the experts once."""
    c = published.CONFIG
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    nope, rope, value = c["qk_nope_head_dim"], c["qk_rope_head_dim"], c["v_head_dim"]
    layers, dense = c["num_hidden_layers"], c["first_k_dense_replace"]
    mixture = layers - dense
    expert = 3 * hidden * c["moe_intermediate_size"]
    low = c["q_lora_rank"] + c["kv_lora_rank"]
    divided = (
        layers * heads * ((nope + rope) * c["q_lora_rank"] + (nope + value) * c["kv_lora_rank"] + value * hidden)
        + dense * 3 * hidden * c["intermediate_size"]
        + mixture * expert * c["n_shared_experts"]
        + 2 * c["vocab_size"] * hidden
    )
    undivided = layers * ((low + rope) * hidden + 2 * hidden + low) + mixture * c["n_routed_experts"] * hidden
    bias = mixture * c["n_routed_experts"]
    experts = mixture * c["n_routed_experts"] * expert
    for ranks, total in LEGACY_OUT.items():
        each = 2 * divided + 4 * (2 * (undivided + hidden) + 4 * bias)
        assert ranks * each + 2 * experts == total
    assert 2 * (divided + undivided + hidden + experts) + 4 * bias == BF16_OUT


def test_a_directory_that_is_there_is_left_alone(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(file.stat().st_mtime_ns for file in model.iterdir())
    assert published.main([str(model)]) == 2
    assert capsys.readouterr().err == f"error: {model}: cannot be made (File exists); name a new directory\n"
    assert sorted(file.stat().st_mtime_ns for file in model.iterdir()) == before
