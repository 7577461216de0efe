# SPDX-License-Identifier: Apache-2.0
"""Which patches concern a model: what its family names is there, and what is for models of some families is named."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from recipe.__main__ import main
from recipe.audit.by_model import models_of
from recipe.audit.declarations import collect
from recipe.models.families import FAMILIES, family_of
from recipe.models.published import CONFIGS, KNOWN
from recipe.tiny.config import tiny_fields

# Words of a target or a reason that are about some models only.
_OF_SOME = re.compile(
    r"deepseek|moonlight|kimi|llama|qwen|glm|latent|\bMLA\b|mla_|expert|rout(er|ing)|rope_scaling", re.IGNORECASE
)
# Patches with such a word that change something for every model.
_FOR_ALL = {
    "megatron_patches.core.extensions:transformer_engine": "the modules of all layers",
    "megatron_patches.core.optimizer.optimizer:sharded_state_dict": "the names of all states, where no experts are too",
    "verl_patches.workers.rollout.base:sync_rollout": "the rollout of every model",
}


def test_a_family_names_patches_that_there_are() -> None:
    known = {patch.id for patch in collect()}
    named = [(model_type, patch) for model_type, family in FAMILIES.items() for patch in family.patches]
    assert [pair for pair in named if pair[1] not in known] == []
    assert len(set(named)) == len(named)


def test_a_patch_whose_reason_is_about_some_models_is_named_by_their_families() -> None:
    of_some = {patch.id for patch in collect() if _OF_SOME.search(f"{patch.target} {patch.why} {patch.remove_when}")}
    unnamed = {patch for patch in of_some if not models_of(patch)}
    assert unnamed == set(_FOR_ALL), "name it in `patches` of the families that it is for, or here"


@pytest.mark.parametrize("name", CONFIGS)
def test_what_a_family_names_is_what_its_models_have(name: str) -> None:
    model, patches = KNOWN[name], set(family_of(CONFIGS[name]).patches)
    for has, patch in (
        (model.has_graphs, "vllm_ascend_patches.worker.model_runner_v1:_get_torchair_lazy_compiled_model"),
        (model.has_routes, "verl_patches.utils.megatron_utils:per_tensor_generator"),
        (model.experts > 0, "megatron_patches.core.transformer.moe.router:routing"),
        (model.experts > 0, "vllm_ascend_patches.worker.model_runner_v1:load_model"),
        (model.correction_bias, "megatron_patches.core.transformer.module:float16_module_init"),
    ):
        assert has == (patch in patches), patch


def _listed(capsys: pytest.CaptureFixture[str], *options: str) -> list[dict[str, object]]:
    assert main(["patches", "list", "--json", *options]) == 0
    listed: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return listed


@pytest.mark.parametrize("model", ["kimi_k2", "moonlight_16b_a3b", "qwen3_30b_a3b", "qwen3", "llama3_1_8b"])
def test_the_list_for_a_model_leaves_out_what_is_for_others(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    every, some = _listed(capsys), _listed(capsys, "--model", model)
    model_type = CONFIGS[model]["model_type"] if model in CONFIGS else model
    assert some == [patch for patch in every if not patch["models"] or model_type in patch["models"]]  # type: ignore[operator]
    assert 0 < len(some) < len(every)
    assert main(["patches", "list", "--model", model]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"{len(some)} patches, and {len(every) - len(some)} for other models alone"


def test_a_model_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(tiny_fields("legal")), encoding="utf-8")
    assert _listed(capsys, "--model", str(tmp_path)) == _listed(capsys, "--model", "deepseek_v3_671b")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "neither a directory with config.json nor one of deepseek_v3, "),
        ("[]", "config.json: holds no JSON object"),
        ('{"model_type": "gemma3_text"}', "model_type 'gemma3_text' cannot be trained: nothing here describes it"),
    ],
)
def test_another_model_is_one_line(
    content: str | None, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    assert main(["patches", "list", "--model", str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and printed.out == ""


def test_the_catalogue_has_the_families() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "PATCHES.md").read_text(encoding="utf-8")
    assert page.count("- **for models of**: ") == sum(bool(models_of(patch.id)) for patch in collect())
