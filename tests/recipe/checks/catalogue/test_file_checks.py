# SPDX-License-Identifier: Apache-2.0
"""W, D: each check passes on files that are right, and finds what was spoilt in them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest


def _model(world: Any) -> Path:
    return Path(world.config.model.path)


def _checkpoint(world: Any) -> Path:
    return Path(world.config.model.checkpoint)


def _config(**values: Any) -> Any:
    return lambda world: world.edit_json(_model(world) / "config.json", **values)


def _tokenizer(**values: Any) -> Any:
    return lambda world: world.edit_json(_model(world) / "tokenizer_config.json", **values)


def _data(world: Any, split: str = "train") -> Path:
    return Path(getattr(world.config.data, f"{split}_path"))


def _rewrite(world: Any, change: Any) -> None:
    """The training file with other rows."""
    table = pq.read_table(_data(world))
    rows = [change(row) for row in table.to_pylist()]
    import pyarrow as pa

    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), _data(world))


def _prompt(old: str, new: str) -> Any:
    def change(row: dict[str, Any]) -> dict[str, Any]:
        row["prompt"] = [{**one, "content": one["content"].replace(old, new)} for one in row["prompt"]]
        return row

    return lambda world: _rewrite(world, change)


def _truths(value: str) -> Any:
    return lambda world: _rewrite(world, lambda row: {**row, "reward_model": {"style": "rule", "ground_truth": value}})


def _legacy(world: Any) -> None:
    (_checkpoint(world) / "metadata.json").unlink()
    (_checkpoint(world) / "latest_checkpointed_iteration.txt").write_text("1")


def _shorter(world: Any) -> None:
    with open(_checkpoint(world) / "__0_0.distcp", "r+b") as file:
        file.truncate(4096)


def _truncated_weights(world: Any) -> None:
    (_model(world) / "model.safetensors").write_bytes(b"\xff\xff\xff\x7f\x00\x00\x00\x00{}")


def _big_token(world: Any) -> None:
    file = _model(world) / "tokenizer.json"
    content = json.loads(file.read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 99999, "content": "<x>"})
    file.write_text(json.dumps(content))


def _no_system(world: Any) -> None:
    template = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    _tokenizer(chat_template=template)(world)


def _same_problems(world: Any) -> None:
    shutil.copy(_data(world), _data(world, "validation"))


def _without_problem(world: Any) -> None:
    import pyarrow as pa

    table = pq.read_table(_data(world))
    extra = [{"index": row["index"]} for row in table["extra_info"].to_pylist()]
    place = table.schema.get_field_index("extra_info")
    pq.write_table(table.set_column(place, "extra_info", pa.array(extra)), _data(world))


def _opened(tail: str) -> Any:
    return lambda world: _tokenizer(
        chat_template="{% for m in messages %}{{ m.content }}{% endfor %}" + f"<｜Assistant｜>{tail}"  # noqa: RUF001
    )(world)


def _without_column(world: Any) -> None:
    table = pq.read_table(_data(world)).drop_columns(["reward_model"])
    pq.write_table(table, _data(world))


# id -> (how it is spoilt, level, part of what is said)
TRIPS = {
    "W001": (lambda world: (_model(world) / "config.json").unlink(), "error", "config.json is not there"),
    "W002": (
        _config(quantization_config={"quant_method": "fp8"}),
        "error",
        "quantization_config is {'quant_method': 'fp8'}",
    ),
    "W003": (_config(scoring_func="softmax"), "error", "scoring_func is 'softmax'"),
    "W005": (lambda world: (_model(world) / "tokenizer.json").unlink(), "error", "no tokenizer.json"),
    "W006": (_big_token, "error", "token 99999 with vocab_size"),
    "W007": (lambda world: shutil.rmtree(_checkpoint(world)), "error", "is not a directory"),
    "W008": (_legacy, "error", "per-rank files (legacy)"),
    "W009": (_shorter, "error", "__0_0.distcp has 4096 bytes"),
    "W010": (_config(num_hidden_layers=3), "error", "has decoder.layers.3.input_layernorm.weight"),
    "W012": (_config(auto_map={"AutoModel": "modeling.Model"}), "warning", "auto_map"),
    "D001": (lambda world: _data(world).unlink(), "error", "is not a file"),
    "D002": (_without_column, "error", "no column reward_model"),
    "D003": (lambda world: world.set(train_prompts_per_step=64), "error", "32 problems to learn from"),
    "D005": (_prompt("<answer>", "<result>"), "warning", "no <answer> in the prompt"),
    "D006": (_prompt("\\boxed", "\\\\boxed"), "error", "two backslashes"),
    "D008": (lambda world: world.set(data_max_prompt_tokens=5), "error", "over 5 tokens"),
    "D009": (_no_system, "error", "drops or changes the system message"),
    "D010": (_same_problems, "warning", "32 of 32 validation problems"),
    "D011": (_truths(" "), "error", "32 of 32 ground truths are empty"),
    "D015": (_opened("<think>\n"), "error", "and r1_zero wants <think> from the model"),
    "D016": (_without_problem, "warning", "no text at extra_info.problem"),
}


@pytest.mark.parametrize("id", TRIPS)
def test_a_spoilt_file_is_found_and_a_right_one_is_not(id: str, files: Any) -> None:
    spoil, level, said = TRIPS[id]
    assert files.findings(id) == []
    spoil(files)
    findings = files.findings(id)
    assert findings and {finding.level for finding in findings} == {level}
    assert any(said in f"{finding.found}; {finding.expected}" for finding in findings), findings
    assert all(finding.expected and finding.fix for finding in findings)


def test_w004_another_model_than_was_planned_with(files: Any) -> None:
    files.edit_json(
        _model(files) / "config.json", num_hidden_layers=61, first_k_dense_replace=3, hidden_size=7168,
        num_attention_heads=128, q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64,
        v_head_dim=128, intermediate_size=18432, moe_intermediate_size=2048, n_routed_experts=256, n_shared_experts=1,
        num_experts_per_tok=8, n_group=8, topk_group=4, vocab_size=129280, max_position_embeddings=163840,
        rope_scaling={"type": "yarn", "factor": 40, "mscale": 1.0, "mscale_all_dim": 1.0},
    )  # fmt: skip
    files.set(model_architecture="deepseek_v3_671b")
    assert files.findings("W004") == []
    _config(num_hidden_layers=62)(files)
    assert "layers 62 in config.json" in files.findings("W004")[0].found


def test_w011_weights_that_a_checkpoint_is_to_be_made_of(files: Any) -> None:
    import torch
    from safetensors.torch import save_file

    files.set(model_checkpoint=None)
    save_file({"a": torch.zeros(2, dtype=torch.bfloat16)}, _model(files) / "model.safetensors")
    assert files.findings("W011") == []
    save_file({"a": torch.zeros(2, dtype=torch.float8_e4m3fn)}, _model(files) / "model.safetensors")
    assert "1 tensors in FP8" in files.findings("W011")[0].found
    _truncated_weights(files)
    assert "truncated" in files.findings("W011")[0].found


@pytest.mark.parametrize("id", [*TRIPS, "W004", "W011"])
def test_on_a_machine_without_the_files_a_check_says_so_and_does_not_pass(id: str, cluster: Any) -> None:
    cluster.node = False
    if id == "W011":
        cluster.set(model_checkpoint=None)
    (finding,) = cluster.findings(id)
    assert finding.level == "not run" and "not on this machine" in finding.found


@pytest.mark.parametrize("id", ["W001", "W007", "D001"])
def test_on_a_node_of_the_run_a_missing_file_is_an_error(id: str, cluster: Any) -> None:
    assert {finding.level for finding in cluster.findings(id)} == {"error"}


def test_w002_prediction_layers_and_other_types(files: Any) -> None:
    _config(num_nextn_predict_layers=1, torch_dtype="float32")(files)
    assert [finding.level for finding in files.findings("W002")] == ["error", "warning"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda at: (at / "model.safetensors").touch(), "safetensors, a Hugging Face model"),
        (lambda at: (at / "__0_0.distcp").touch(), "a conversion that did not end"),
        (lambda at: (at / "metadata.json").write_text('{"sharded_backend": "zarr"}'), "the backend 'zarr'"),
        (lambda at: (at / "metadata.json").write_text("{"), "cannot be read"),
        (lambda at: (at / "iter_0000001" / "mp_rank_00").mkdir(parents=True), "per-rank files"),
        (lambda at: None, "no checkpoint"),
    ],
)
def test_w008_names_what_the_directory_holds(tmp_path: Path, files: Any, make: Any, said: str) -> None:
    at = tmp_path / "other"
    at.mkdir()
    make(at)
    files.set(model_checkpoint=str(at))
    assert said in files.findings("W008")[0].found


def test_w008_points_to_the_directory_inside(tmp_path: Path, files: Any) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    shutil.move(_checkpoint(files), outer / "dist_ckpt")
    files.set(model_checkpoint=str(outer))
    assert files.findings("W008")[0].fix == f"set [model] checkpoint to {outer / 'dist_ckpt'}"


def test_w009_a_metadata_that_would_run_something_is_refused(files: Any) -> None:
    # pickletools: GLOBAL os.system, a call with "touch ...", stop.
    marker = files.root / "ran"
    (_checkpoint(files) / ".metadata").write_bytes(f"cos\nsystem\n(S'touch {marker}'\ntR.".encode())
    (finding,) = files.findings("W009")
    assert finding.level == "error" and "os.system" in finding.found
    assert not marker.exists()
    assert [finding.level for finding in files.findings("W010")] == ["not run"]


def test_w010_other_shapes(files: Any) -> None:
    _config(hidden_size=256)(files)
    assert "embedding.word_embeddings.weight is" in files.findings("W010")[0].found


def test_w005_a_tokenizer_without_a_chat_template_gets_ours(files: Any) -> None:
    _tokenizer(chat_template=None)(files)
    for id in ("W005", "D008", "D009", "D015"):
        assert files.findings(id) == [], id


def test_a_tiktoken_tokenizer_is_told_what_makes_a_tokenizer_json_of_it(files: Any) -> None:
    (_model(files) / "tokenizer.json").rename(_model(files) / "tiktoken.model")
    _tokenizer(auto_map={"AutoTokenizer": ["tokenization_moonshot.Tokenizer", None]}, tokenizer_class="Tokenizer")(
        files
    )
    for id in ("W005", "D009"):
        assert [finding.fix for finding in files.findings(id)] == [
            f"run: python -m recipe tokenizer-json {_model(files)}"
        ]


def test_w005_a_chat_template_that_is_not_there(files: Any) -> None:
    files.set(data_chat_template=str(files.root / "absent.jinja"))
    assert "absent.jinja: cannot be read" in files.findings("W005")[0].found
    assert [finding.level for finding in files.findings("D009")] == ["not run"]


def test_d009_renders_with_the_chat_template_of_the_run_file(files: Any) -> None:
    template = files.root / "of_the_run.jinja"
    template.write_text("{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}")
    files.set(data_chat_template=str(template))
    assert "drops or changes the system message" in files.findings("D009")[0].found


def test_d015_a_pair_of_tags_that_is_closed_again_leaves_think_to_the_model(files: Any) -> None:
    _opened("<think>\n\n</think>\n\n")(files)
    assert files.findings("D015") == []


def test_d015_matters_for_rules_that_look_for_the_tags_only(files: Any) -> None:
    _opened("<think>\n")(files)
    assert len(files.findings("D015")) == 1
    files.set(reward=replace(files.config.reward, verifier="math_17k_acc"))
    assert files.findings("D015") is None


def test_d016_without_the_key_nobody_needs_the_problem(files: Any) -> None:
    _without_problem(files)
    files.set(reward=replace(files.config.reward, refuse_copied=False))
    assert files.findings("D016") is None


def test_d011_names_what_the_runs_rule_cannot_match(files: Any) -> None:
    _truths("it does not converge, since 1 = 2 there")(files)
    (finding,) = files.findings("D011")
    assert finding.level == "warning" and "32 of 32 truths cannot be matched" in finding.found
    assert "(prose)" in finding.found
    files.set(reward=replace(files.config.reward, verifier="math_lighteval"))
    assert files.findings("D011") == []


def test_d008_some_longer_prompts_are_a_warning(files: Any) -> None:
    _prompt("What is 3", "What is " + "7 + " * 400 + "3")(files)
    assert [finding.level for finding in files.findings("D008")] == ["warning"]
    assert "prompts have over 512 tokens" in files.findings("D008")[0].found


def test_d009_marks_in_pieces(files: Any) -> None:
    content = json.loads((_model(files) / "tokenizer.json").read_text())
    content["added_tokens"] = [one for one in content["added_tokens"] if "User" not in one["content"]]
    (_model(files) / "tokenizer.json").write_text(json.dumps(content))
    assert "tokens" in files.findings("D009")[0].found


def test_a_damaged_data_file_is_one_finding_and_no_pass(files: Any) -> None:
    _data(files).write_bytes(b"PAR1 no more")
    assert [finding.level for finding in files.findings("D002")] == ["error"]
    assert [finding.level for finding in files.findings("D003")] == ["not run"]


def test_json_problems_are_checked_before_they_are_converted(files: Any) -> None:
    root = _data(files).parent
    files.set(data_kind="json", data_train_path=None, data_validation_path=None, data_path=str(root / "problems.json"))
    for id in ("D001", "D002", "D003", "D005", "D008", "D009", "D011"):
        assert files.findings(id) == [], id
    assert files.findings("D010") is None
    (root / "problems.json").write_text('[{"question": "1"}]')
    assert "'problem' is missing" in files.findings("D002")[0].found
