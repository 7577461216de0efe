# SPDX-License-Identifier: Apache-2.0
"""The legacy checkpoint read back with torch, rank by rank, beside what whole-tensor arithmetic makes of the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from recipe.weights import legacy, transpose
from recipe.weights.errors import WeightsError
from recipe.weights.job import run_job, verify_job
from recipe.weights.legacy_options import LegacyOptions
from tests.recipe.weights.legacy_oracle import expected

CONFIG: dict[str, Any] = {
    "model_type": "deepseek_v3", "vocab_size": 24, "hidden_size": 16, "intermediate_size": 24,
    "moe_intermediate_size": 8, "num_hidden_layers": 5, "num_attention_heads": 4, "n_routed_experts": 8,
    "n_shared_experts": 1, "first_k_dense_replace": 2, "q_lora_rank": 6, "kv_lora_rank": 4, "qk_nope_head_dim": 3,
    "qk_rope_head_dim": 2, "v_head_dim": 5, "num_experts_per_tok": 2, "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}  # fmt: skip
# Sizes at which blocks of 128 are cut, some of them not at multiples of 128, and at which the kernels are used.
LARGE = CONFIG | {
    "hidden_size": 256, "intermediate_size": 384, "moe_intermediate_size": 256, "num_hidden_layers": 3,
    "n_routed_experts": 4, "first_k_dense_replace": 1, "q_lora_rank": 136, "kv_lora_rank": 72, "qk_nope_head_dim": 24,
    "qk_rope_head_dim": 8, "v_head_dim": 40,
}  # fmt: skip


def random_weights(config: dict[str, Any], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    from recipe.weights import deepseek_v3

    generator = torch.Generator().manual_seed(11)
    weights = {}
    for place in deepseek_v3.layout(config).places:
        kind = torch.float32 if place.hf_name.endswith("bias") else dtype
        weights[place.hf_name] = torch.randn(place.hf_shape, generator=generator).to(kind)
    return weights


def to_fp8(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights as published (projections in FP8 with scales), and what they stand for in bfloat16."""
    stored, meant = {}, {}
    for name, tensor in weights.items():
        stored[name] = meant[name] = tensor
        if name.endswith(("_proj.weight", "_with_mqa.weight")):
            rows, columns = tensor.shape
            scale = torch.rand(-(-rows // 128), -(-columns // 128)) + 0.01
            raw = tensor.float().to(torch.float8_e4m3fn)
            stored |= {name: raw, name + "_scale_inv": scale}
            spread = scale.repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :columns]
            meant[name] = (raw.float() * spread).to(torch.bfloat16)
    return stored, meant


def write(directory: Path, tensors: dict[str, torch.Tensor], config: dict[str, Any], shards: int = 2) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    names = sorted(tensors)
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard}.safetensors"
        # One after the other, so that a scale and its tensor are in different files.
        part = {name: tensors[name].contiguous() for name in names[shard::shards]}
        save_file(part, directory / file)
        weight_map |= dict.fromkeys(part, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return directory


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().view(torch.uint8)


def convert(source: Path, output: Path, options: LegacyOptions, workers: int = 2) -> None:
    run_job(legacy.plan(source, output, options).job, workers=workers)


def check(output: Path, wanted: dict[str, dict[str, torch.Tensor]], mapped: bool = False) -> None:
    assert {str(path.relative_to(output)) for path in output.rglob("*.pt")} == set(wanted)
    assert (output / "latest_checkpointed_iteration.txt").read_text() == "1"
    for file, model in wanted.items():
        loaded = torch.load(output / file, weights_only=True, mmap=mapped)
        assert {name: value for name, value in loaded.items() if name != "model"} == {
            "checkpoint_version": 3.0, "iteration": 1
        }  # fmt: skip
        assert set(loaded["model"]) == set(model), file
        for name, tensor in model.items():
            got = loaded["model"][name]
            assert got.dtype == tensor.dtype and got.shape == tensor.shape and got.is_contiguous(), (file, name)
            assert torch.equal(bits(got), bits(tensor)), (file, name)


GROUPED = LegacyOptions(grouped_gemm=True)
SPLITS = {
    "one rank": LegacyOptions(),
    "one rank, grouped": GROUPED,
    "tensor": LegacyOptions(tensor=2),
    "tensor, grouped": LegacyOptions(tensor=4, grouped_gemm=True),
    "pipeline, uneven": LegacyOptions(pipeline=3, layer_list=(1, 3, 1), grouped_gemm=True),
    "expert": LegacyOptions(expert=4),
    "expert, grouped": LegacyOptions(expert=2, grouped_gemm=True),
    "tensor and expert, sliced": LegacyOptions(tensor=2, expert=2, grouped_gemm=True),
    "tensor and expert, dealt": LegacyOptions(tensor=2, expert=2, grouped_gemm=True, tp_extend_ep=True),
    "all, uneven": LegacyOptions(tensor=2, pipeline=2, expert=4, layer_list=(3, 2), grouped_gemm=True),
    "as the recipe": LegacyOptions(
        4, 3, 2, (1, 2, 2), num_layers=5, first_k_dense_replace=2, grouped_gemm=True, tp_extend_ep=True
    ),
    "as the recipe, MLA split": LegacyOptions(
        4, 3, 2, (1, 2, 2), grouped_gemm=True, tp_extend_ep=True, mla_mm_split=True
    ),
    "for a later MindSpeed-LLM": LegacyOptions(tensor=2, grouped_gemm=True, mindspeed_llm="2.2"),
    "for a later MindSpeed-LLM, MLA split": LegacyOptions(tensor=2, mla_mm_split=True, mindspeed_llm="2.2"),
}  # fmt: skip


@pytest.mark.parametrize("options", SPLITS.values(), ids=SPLITS)
def test_every_element_of_every_rank(options: LegacyOptions, tmp_path: Path) -> None:
    weights = random_weights(CONFIG, torch.bfloat16)
    convert(write(tmp_path / "hf", weights, CONFIG), tmp_path / "out", options)
    check(tmp_path / "out", expected(weights, CONFIG, options), mapped=options.tensor > 1)


@pytest.mark.parametrize("name", ["tensor and expert, sliced", "as the recipe, MLA split"])
@pytest.mark.parametrize("kernel", ["compiled", "numpy"])
def test_fp8_is_dequantised_as_whole_tensors_are(
    name: str, kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kernel == "numpy":
        monkeypatch.setattr(transpose, "_kernel", lambda rows, columns: None)
    options = SPLITS[name]
    if options.layer_list:
        options = LegacyOptions(4, 2, 1, (2, 1), grouped_gemm=True, tp_extend_ep=True, mla_mm_split=True)
    stored, meant = to_fp8(random_weights(LARGE, torch.bfloat16))
    source = write(tmp_path / "hf", stored, LARGE, shards=3)
    convert(source, tmp_path / "out", options)
    check(tmp_path / "out", expected(meant, LARGE, options))
    verify_job(legacy.plan(source, tmp_path / "out", options).job)


@st.composite
def models(draw: st.DrawFn) -> tuple[dict[str, Any], LegacyOptions]:
    """A model of odd sizes and a split that it has."""
    tensor, expert = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([1, 2, 3]))
    stages = tuple(draw(st.lists(st.integers(1, 3), min_size=1, max_size=3)))
    grouped = draw(st.booleans())

    def size(multiple: int = 1) -> int:
        return multiple * draw(st.integers(1, 5))

    config = CONFIG | {
        "vocab_size": size(tensor), "hidden_size": size(), "intermediate_size": size(tensor),
        "moe_intermediate_size": size(tensor), "num_hidden_layers": sum(stages), "num_attention_heads": size(tensor),
        "n_routed_experts": size(tensor * expert), "n_shared_experts": draw(st.integers(1, 2)),
        "num_experts_per_tok": 1,
        "first_k_dense_replace": draw(st.integers(0, sum(stages))), "q_lora_rank": size(), "kv_lora_rank": size(),
        "qk_nope_head_dim": size(), "qk_rope_head_dim": size(), "v_head_dim": size(),
    }  # fmt: skip
    options = LegacyOptions(
        tensor, len(stages), expert, stages, grouped_gemm=grouped, tp_extend_ep=grouped and draw(st.booleans()),
        mla_mm_split=draw(st.booleans()), mindspeed_llm=draw(st.sampled_from(["2.1", "2.2"])),
    )  # fmt: skip
    return config, options


@settings(max_examples=25, deadline=None)
@given(models(), st.booleans())
def test_any_model_in_any_split(
    tmp_path_factory: pytest.TempPathFactory, model: tuple[dict[str, Any], LegacyOptions], quantised: bool
) -> None:
    config, options = model
    scratch = tmp_path_factory.mktemp("any")
    stored = meant = random_weights(config, torch.bfloat16)
    if quantised:
        stored, meant = to_fp8(meant)
    convert(write(scratch / "hf", stored, config), scratch / "out", options)
    check(scratch / "out", expected(meant, config, options))


def test_float32_comes_out_as_float32(tmp_path: Path) -> None:
    weights = random_weights(CONFIG, torch.float32)
    convert(write(tmp_path / "hf", weights, CONFIG), tmp_path / "out", SPLITS["tensor, grouped"])
    check(tmp_path / "out", expected(weights, CONFIG, SPLITS["tensor, grouped"]))


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", random_weights(CONFIG, torch.bfloat16), CONFIG)
    for workers in (1, 3):
        convert(source, tmp_path / str(workers), SPLITS["as the recipe"], workers)
    files = [path.relative_to(tmp_path / "1") for path in (tmp_path / "1").rglob("*") if path.is_file()]
    assert len(files) == 4 * 3 * 2 + 2
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "3" / file).read_bytes(), file


def test_another_split_is_refused_and_overwriting_leaves_no_rank_of_the_first(tmp_path: Path) -> None:
    weights = random_weights(CONFIG, torch.bfloat16)
    source = write(tmp_path / "hf", weights, CONFIG)
    first, second = SPLITS["as the recipe"], SPLITS["tensor"]
    convert(source, tmp_path / "out", first)
    with pytest.raises(WeightsError, match="other input or options"):
        convert(source, tmp_path / "out", second)
    check(tmp_path / "out", expected(weights, CONFIG, first))
    run_job(legacy.plan(source, tmp_path / "out", second).job, overwrite=True)
    check(tmp_path / "out", expected(weights, CONFIG, second))


def test_verify_names_the_rank_and_the_tensor_of_a_changed_byte(tmp_path: Path) -> None:
    source = write(tmp_path / "hf", random_weights(CONFIG, torch.bfloat16), CONFIG)
    convert(source, tmp_path / "out", SPLITS["expert, grouped"])
    file = tmp_path / "out" / "iter_0000001" / "mp_rank_00_001" / "model_optim_rng.pt"
    raw = bytearray(file.read_bytes())
    held = bits(torch.load(file, weights_only=True)["model"]["decoder.layers.4.mlp.experts.weight2"]).numpy().tobytes()
    raw[raw.index(held) + 7] ^= 1
    file.write_bytes(raw)
    with pytest.raises(WeightsError, match=r"mp_rank_00_001/.*model\.layers\.4\.mlp\.experts\.4\.down_proj.* differs"):
        verify_job(legacy.plan(source, tmp_path / "out", SPLITS["expert, grouped"]).job)


@pytest.mark.parametrize("shape", [(32, 8), (64, 32), (128, 96), (192, 256), (3, 5), (64, 20), (65, 32)])
@pytest.mark.parametrize("kind", ["uint16", "uint32"])
def test_columns_become_rows(shape: tuple[int, int], kind: str) -> None:
    matrix = np.random.default_rng(3).integers(0, 2**16, shape).astype(kind)
    for first in range(0, shape[1], 3):
        for count in {1, 8, 16, shape[1] - first}:
            if first + count <= shape[1]:
                out = np.empty((count, shape[0]), kind)
                transpose.columns_as_rows(matrix, first, out)
                assert np.array_equal(out, matrix[:, first : first + count].T)


def test_where_llvm_fails_numpy_transposes_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(code: str) -> None:
        raise RuntimeError("unknown processor")

    monkeypatch.setattr(transpose, "_compiled", [])
    monkeypatch.setattr("recipe.weights.transpose_kernel.compile_code", fails)
    matrix, out = np.arange(64 * 32, dtype=np.uint16).reshape(64, 32), np.empty((16, 64), np.uint16)
    for _ in range(2):
        transpose.columns_as_rows(matrix, 8, out)
    assert np.array_equal(out, matrix[:, 8:24].T)
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "RuntimeError: unknown processor" in error and "numpy, a tenth as fast" in error


@pytest.mark.parametrize(
    ("first", "shape", "kind"),
    [(1, (8, 32), "uint16"), (-1, (8, 32), "uint16"), (0, (8, 64), "uint16"), (0, (8, 32), "uint32")],
)
def test_machine_code_is_not_let_loose_beside_the_arrays(first: int, shape: tuple[int, int], kind: str) -> None:
    with pytest.raises(ValueError, match="as rows of"):
        transpose.columns_as_rows(np.zeros((32, 8), np.uint16), first, np.zeros(shape, kind))


REFUSED = [
    ("a list that does not sum", LegacyOptions(pipeline=2, layer_list=(2, 2)), ["2,2", "sums to 4", "5"]),
    ("a list of another length", LegacyOptions(pipeline=2, layer_list=(1, 2, 2)), ["3 stages", "says 2"]),
    ("an empty stage", LegacyOptions(pipeline=2, layer_list=(0, 5)), ["0,5", "at least one layer"]),
    ("no list for uneven stages", LegacyOptions(pipeline=2), ["does not divide 5 layers", "--num-layer-list"]),
    ("no rank", LegacyOptions(tensor=0), ["--target-tensor-parallel-size 0"]),
    ("experts", LegacyOptions(expert=3), ["--target-expert-parallel-size 3", "n_routed_experts 8"]),
    ("dealt experts", LegacyOptions(4, 1, 4, grouped_gemm=True, tp_extend_ep=True), ["4 times 4", "experts 8"]),
    ("heads", LegacyOptions(tensor=8), ["--target-tensor-parallel-size 8", "num_attention_heads 4"]),
    ("layers", LegacyOptions(num_layers=61), ["--num-layers 61", "num_hidden_layers 5"]),
    ("dense layers", LegacyOptions(first_k_dense_replace=3), ["--first-k-dense-replace 3", "first_k_dense_replace 2"]),
    ("dealt without groups", LegacyOptions(tensor=2, tp_extend_ep=True), ["--moe-tp-extend-ep", "--moe-grouped-gemm"]),
]  # fmt: skip


@pytest.mark.parametrize(("options", "words"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_split_that_the_model_has_not_is_refused(options: LegacyOptions, words: list[str], tmp_path: Path) -> None:
    """Before any tensor is looked at: the directory holds nothing but config.json and an empty shard."""
    source = write(tmp_path / "hf", {"x": torch.zeros(1)}, CONFIG, shards=1)
    with pytest.raises(WeightsError) as caught:
        legacy.plan(source, tmp_path / "out", options)
    assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "model_type"),
        ({"q_lora_rank": None}, "q_lora_rank"),
        ({"moe_layer_freq": 2}, "moe_layer_freq"),
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"vocab_size": 23}, "vocab_size 23"),
        ({"intermediate_size": 23}, "intermediate_size 23"),
        ({"moe_intermediate_size": 9}, "size 9"),
    ],
)
def test_a_model_that_has_no_such_layout_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    source = write(tmp_path / "hf", {"x": torch.zeros(1)}, CONFIG | change, shards=1)
    with pytest.raises(WeightsError, match=message):
        legacy.plan(source, tmp_path / "out", LegacyOptions(tensor=2))


def test_a_size_that_config_json_lacks_is_named(tmp_path: Path) -> None:
    config = {name: value for name, value in CONFIG.items() if name != "kv_lora_rank"}
    source = write(tmp_path / "hf", {"x": torch.zeros(1)}, config, shards=1)
    with pytest.raises(WeightsError, match="kv_lora_rank is missing"):
        legacy.plan(source, tmp_path / "out", LegacyOptions())
