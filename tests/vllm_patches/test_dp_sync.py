# SPDX-License-Identifier: Apache-2.0
"""What engines agree on before a step is the same whether hosts or devices reduce it; devices do when asked."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import vllm.config  # noqa: F401
import vllm_ascend.worker.model_runner_v1  # noqa: F401

from recipe import overlay
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.paths import RunPaths
from tests.ranks import Ranks
from vllm_patches.dp_sync import OPTION

REPO = Path(__file__).resolve().parents[2]
IDS = (
    "vllm_patches.config:has_unfinished_dp",
    "vllm_ascend_patches.worker.model_runner_v1:_get_forward_metadata_across_dp",
)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two engines saw."""
    directory = tmp_path_factory.mktemp("engines")
    with contextlib.closing(Ranks("tests.vllm_patches.dp_sync_process", log=directory / "log")) as ranks:
        ranks.run({"out": str(directory / "found")}, directory / "rank", ranks=2, limit_s=180, **{OPTION: "1"})
    return [json.loads((directory / f"found.{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.proves(*IDS)
def test_devices_reduce(found: list[dict[str, Any]]) -> None:
    assert [one["backends with"] for one in found] == [["hccl"], ["hccl"]]
    assert [one["backends without"] for one in found] == [["gloo"], ["gloo"]]


def test_engines_agree_on_the_same(found: list[dict[str, Any]]) -> None:
    for one in found:
        assert one["with"] == one["without"]
        assert one["with"][:4] == [False, True, True, True], "unfinished anywhere"
    assert len({json.dumps(answer) for answer in found[0]["with"]}) > 15, "the cases tell answers apart"


def test_a_process_that_is_not_asked_has_vllms_own() -> None:
    states = {one["patch"]: one for one in overlay.status()}
    assert (states[IDS[0]]["status"], "dp_sync_on_device" in states[IDS[0]]["reason"]) == ("skipped", True)


def test_it_is_so_by_default_and_the_run_file_turns_it_off(tmp_path: Path) -> None:
    text = (REPO / "configs" / "sim.toml").read_text(encoding="utf-8")
    paths = RunPaths(tmp_path, "id", tmp_path)
    for setting, expected in (("", "1"), ("dp_sync_on_device = false\n", "0")):
        file = tmp_path / "run.toml"
        file.write_text(text.replace("[rollout]", f"[rollout]\n{setting}#"), encoding="utf-8")
        config = load(file)
        assert derive_run(config, paths=paths).environment[OPTION] == expected
