# SPDX-License-Identifier: Apache-2.0
"""Everything that can be wrong with a Hugging Face checkpoint, given to every tool that reads one.

One line that names the file and the tensor, exit code 2, and nothing left where the output would be.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipe.tiny.config import Fp8Model
from recipe.tiny.fp8 import make_fp8_model
from recipe.weights import cast_cli, convert
from recipe.weights.hf_checkpoint import INDEX_NAME
from tests.recipe.weights.tools import nothing_published

MODEL = Fp8Model(
    hidden_size=128, layers=3, experts=4, intermediate_size=128, moe_intermediate_size=128, heads=2, q_rank=64,
    kv_rank=64, shard_bytes=400_000,
)  # fmt: skip
LAST = "model.layers.2.mlp.experts.3.up_proj.weight"
SCALE = LAST + "_scale_inv"


class Checkpoint:
    """A good checkpoint to spoil."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.index: dict[str, Any] = json.loads((directory / INDEX_NAME).read_text())
        self.file_of: dict[str, str] = self.index["weight_map"]
        # Where the tensor that is spoilt stands; its scale may be in another file.
        self.file, self.scale_file = directory / self.file_of[LAST], directory / self.file_of[SCALE]

    def set(self, name: str, tensor: torch.Tensor | None, file: Path | None = None) -> None:
        """Replace a tensor, put it into another file, or take it out, of its file and of the index."""
        place = file or self.directory / self.file_of[name]
        tensors = load_file(place)
        tensors.pop(name, None)
        self.file_of.pop(name, None)
        if tensor is not None:
            tensors[name] = tensor
            self.file_of[name] = place.name
        save_file(tensors, place)
        self.write_index()

    def write_index(self) -> None:
        (self.directory / INDEX_NAME).write_text(json.dumps(self.index))

    def config(self, **changes: Any) -> None:
        file = self.directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    def with_byte(self, byte: int) -> torch.Tensor:
        """The tensor with one byte changed, in its last row."""
        raw = load_file(self.file)[LAST].view(torch.uint8)
        raw[-1, 5] = byte
        return raw.view(torch.float8_e4m3fn)


def absent_tensor(c: Checkpoint) -> None:
    c.file_of["model.layers.1.gone.weight"] = c.file.name
    c.write_index()


def corrupt_header(c: Checkpoint) -> None:
    with c.file.open("r+b") as stream:
        stream.seek(9)
        stream.write(b"\xff")


def duplicate(c: Checkpoint) -> None:
    shard = next(file for file in sorted(c.directory.glob("*.safetensors")) if file != c.file)
    save_file(load_file(shard) | {LAST: load_file(c.file)[LAST]}, shard)


Spoil = Callable[[Checkpoint], object]
# What is done, and what the line says: "FILE" stands for the file that holds the tensor.
BAD: dict[str, tuple[Spoil, list[str]]] = {
    "FP8 tensor without scale": (lambda c: c.set(SCALE, None), ["FILE", LAST, "FP8", SCALE]),
    "scale without tensor": (lambda c: c.set(LAST, None), [SCALE, "scales", "no shard"]),
    "scale of a tensor that is not FP8": (lambda c: c.set(LAST, torch.zeros(128, 128).bfloat16()), [SCALE, "BF16"]),
    "wrong scale shape": (lambda c: c.set(SCALE, torch.ones(1, 2)), [SCALE, "[1, 2]", "[1, 1]"]),
    "scale of another dtype": (lambda c: c.set(SCALE, torch.ones(1, 1).double()), [SCALE, "F64", "F32"]),
    "scale of zero": (lambda c: c.set(SCALE, torch.zeros(1, 1)), [SCALE, "0.0 at [0, 0]"]),
    "negative scale": (lambda c: c.set(SCALE, torch.full((1, 1), -0.5)), [SCALE, "-0.5 at [0, 0]"]),
    "infinite scale": (lambda c: c.set(SCALE, torch.full((1, 1), torch.inf)), [SCALE, "inf"]),
    "NaN 0x7F": (lambda c: c.set(LAST, c.with_byte(0x7F)), ["FILE", LAST, "0x7F", "[127, 5]"]),
    "NaN 0xFF": (lambda c: c.set(LAST, c.with_byte(0xFF)), ["FILE", LAST, "0xFF", "[127, 5]"]),
    "missing shard": (lambda c: c.file.unlink(), ["FILE", "cannot be read"]),
    "truncated file": (lambda c: os.truncate(c.file, c.file.stat().st_size - 1), ["FILE", "truncated", "model."]),
    "cut in the header": (lambda c: os.truncate(c.file, 100), ["FILE", "header"]),
    "corrupt header": (corrupt_header, ["FILE", "corrupt header"]),
    "index names an absent tensor": (absent_tensor, [INDEX_NAME, "model.layers.1.gone.weight", "FILE"]),
    "duplicate tensor": (duplicate, ["FILE", LAST, "is also in"]),
    "no index entry's file": (lambda c: (c.directory / INDEX_NAME).write_text("{}"), [INDEX_NAME, "weight_map"]),
    "no JSON": (lambda c: (c.directory / "config.json").write_text("{"), ["config.json", "JSON"]),
    "other blocks": (
        lambda c: c.config(quantization_config={"quant_method": "fp8", "weight_block_size": [64, 64]}),
        ["config.json", "[64, 64]"],
    ),
}
# What only the tools that know the model can see.
BAD_MODEL: dict[str, tuple[Spoil, list[str]]] = {
    "tied embeddings": (lambda c: c.config(tie_word_embeddings=True), ["config.json", "tie_word_embeddings"]),
    "missing tensor": (lambda c: (c.set(LAST, None), c.set(SCALE, None)), [LAST, "config.json"]),
    "tensor of another shape": (
        lambda c: c.set("model.norm.weight", torch.ones(96).bfloat16()),
        ["model-00001", "model.norm.weight", "[96]", "[128]"],
    ),
    "two dtypes in one Megatron tensor": (
        lambda c: (c.set(LAST, torch.zeros(128, 128)), c.set(SCALE, None)),
        ["FILE", LAST, "F32", "BF16", "experts"],
    ),
    "a tensor too many": (lambda c: c.set("model.layers.1.mlp.bias", torch.zeros(3), c.file), ["FILE", "mlp.bias"]),
}
LEGACY = ["--format", "legacy", "--target-tensor-parallel-size", "2"]
TOOLS: dict[str, Callable[[Path, Path], int]] = {
    "cast": lambda source, out: cast_cli.main(["--input-fp8-hf-path", str(source), "--output-bf16-hf-path", str(out)]),
    "torch_dist": lambda source, out: convert.main(["--load-dir", str(source), "--save-dir", str(out)]),
    "legacy": lambda source, out: convert.main(["--load-dir", str(source), "--save-dir", str(out), *LEGACY]),
}
CASES = [(tool, kind) for tool in TOOLS for kind in BAD] + [
    (tool, kind) for tool in ("torch_dist", "legacy") for kind in BAD_MODEL
]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("good") / "hf"
    make_fp8_model(MODEL, directory, lambda line: None)
    return directory


def refusal(run: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a tool that refuses."""
    assert run() == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("written:")]
    assert len(lines) == 1 and lines[0].startswith("error: "), lines
    return lines[0]


@pytest.mark.parametrize(("tool", "kind"), CASES, ids=[f"{tool}: {kind}" for tool, kind in CASES])
def test_one_line_exit_2_and_nothing_written(
    tool: str, kind: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hf"
    shutil.copytree(good, source)
    checkpoint = Checkpoint(source)
    spoil, words = {**BAD, **BAD_MODEL}[kind]
    spoil(checkpoint)
    line = refusal(lambda: TOOLS[tool](source, tmp_path / "out"), capsys)
    for word in words:
        assert (checkpoint.file.name if word == "FILE" else word) in line, line
    assert nothing_published(tmp_path / "out")


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("where", ["hf", "hf/out", "."])
def test_an_output_in_or_around_the_input(
    tool: str, where: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "hf"
    shutil.copytree(good, source)
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    assert "beside the input" in refusal(lambda: TOOLS[tool](source, tmp_path / where), capsys)
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-pipeline-parallel-size", "2", "--num-layer-list", "2,2"], "--num-layer-list 2,2 sums to 4"),
        (["--target-pipeline-parallel-size", "2", "--num-layer-list", "2;1"], "--num-layer-list 2;1"),
        (["--target-expert-parallel-size", "3"], "--target-expert-parallel-size 3"),
        (["--num-layers", "61"], "--num-layers 61"),
    ],
)
def test_a_split_that_the_model_has_not(
    options: list[str], message: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--load-dir", str(good), "--save-dir", str(tmp_path / "out"), *LEGACY, *options]
    assert message in refusal(lambda: convert.main(arguments), capsys)
    assert not list(tmp_path.iterdir())


def test_a_split_for_a_checkpoint_that_has_none(good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--load-dir", str(good), "--save-dir", str(tmp_path / "out"), "--target-expert-parallel-size", "2"]
    line = refusal(lambda: convert.main(arguments), capsys)
    assert "--target-expert-parallel-size" in line and "legacy" in line
    assert not list(tmp_path.iterdir())
