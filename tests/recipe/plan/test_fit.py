# SPDX-License-Identifier: Apache-2.0
"""`plan --fit`: the run file that it prints can be read, is accepted, fits, and is of the smallest cluster."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from recipe.__main__ import main
from recipe.checks.facts.dies import DieFacts
from recipe.checks.facts.machine import this_machine
from recipe.doctor import hardware
from recipe.models.published import CONFIGS, KNOWN
from recipe.plan.cluster import smallest_cluster
from recipe.plan.duration import estimate
from recipe.plan.memory import memory
from recipe.plan.subject import subject
from recipe.plan.traffic import lengths
from recipe.preflight import refusals
from recipe.runfile.config import load
from recipe.runfile.schema import GIB, HARDWARE, NPU, RunConfig
from recipe.tiny.config import tiny_fields

BIG = "deepseek_v3_671b"
A3 = ("--hardware", "a3_128")
# A tiny model has fewer positions than the answers that are asked for by default.
SHORT = ("--hardware", "a2_64", "--max-response-tokens", "512")


def run_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> RunConfig:
    """What the command prints, read as a run file."""
    assert main(["plan", "--fit", *options]) == 0
    path = tmp_path / "fit.toml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    return load(path)


# A model of each family; all pairs are slow.
FEW = ("moonlight_16b_a3b", "qwen3_30b_a3b", "qwen3_8b", "qwen2_5_0_5b", "llama3_1_8b")
QUICK = {*zip(FEW, itertools.cycle(HARDWARE), strict=False), (BIG, "a3_128")}

# An A2 exchanges tokens among 64 dies at most, an engine on GPUs has 32: too few for a trillion parameters.
NOWHERE = {("kimi_k2", hardware) for hardware in ("a2_64", "h100_80", "a100_80")}


@pytest.mark.parametrize(
    ("model", "hardware"),
    [
        pytest.param(*pair, marks=[] if pair in QUICK else [pytest.mark.slow])
        for pair in itertools.product(KNOWN, HARDWARE)
        if pair not in NOWHERE
    ],
)
def test_what_is_printed_is_accepted_and_fits(
    model: str, hardware: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = run_file(tmp_path, capsys, model, "--hardware", hardware)
    assert config.cluster.hardware == hardware and config.model.architecture == model
    run = subject(config)
    assert memory(run).fits
    assert [finding.line for finding in refusals(config, machine=this_machine())] == []
    smallest = smallest_cluster(run)
    assert smallest is not None and smallest.run.config.cluster.nodes == config.cluster.nodes
    time, roomiest = (estimate(one, lengths(one, None, None)) for one in (run, smallest.run))
    assert time is not None and roomiest is not None
    assert time.step.estimate <= roomiest.step.estimate


@pytest.mark.parametrize(("model", "hardware"), sorted(NOWHERE))
def test_where_no_layout_has_room_that_is_said(model: str, hardware: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--fit", model, "--hardware", hardware]) == 2
    assert f"{model} does not fit on up to 64 nodes of {hardware} with" in capsys.readouterr().err


def test_longer_answers_and_a_node_with_little_memory_take_more_nodes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = run_file(tmp_path, capsys, BIG, *A3)
    bound = run_file(tmp_path, capsys, BIG, *A3, "--host-memory-gib", "1000")
    assert bound.cluster.nodes > plain.cluster.nodes and bound.cluster.host_memory_gib_per_node == 1000
    assert memory(subject(bound)).host.total <= 1000 * 2**30
    more = run_file(tmp_path, capsys, BIG, *A3, "--max-response-tokens", "16384", "--prompts", "64", "--samples", "4")
    assert (more.data.max_response_tokens, more.train.prompts_per_step, more.rollout.samples_per_prompt) == (
        *(16384, 64),
        4,
    )
    assert more.cluster.nodes >= plain.cluster.nodes
    assert memory(subject(more)).fits


def test_a_model_on_disk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "my model"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(tiny_fields("legal")), encoding="utf-8")
    config = run_file(tmp_path, capsys, str(model), *SHORT)
    assert config.model.path == str(model) and config.run.name == "my_model"
    assert (config.cluster.nodes, config.cluster.head) == (1, None)
    assert config.model.checkpoint == "/shared/my_model-torch_dist"


@pytest.mark.parametrize(
    ("published", "options", "architecture"),
    [(CONFIGS[BIG], A3, BIG), (tiny_fields("legal") | {"num_nextn_predict_layers": 1}, SHORT, None)],
)
def test_a_model_as_published_is_planned_as_what_its_conversion_makes(
    published: dict[str, Any],
    options: tuple[str, ...],
    architecture: str | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tmp_path / "As Published"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(published), encoding="utf-8")
    config = run_file(tmp_path, capsys, str(model), *options)
    home = "/shared/As_Published-torch_dist"
    assert (config.model.path, config.model.checkpoint) == (f"{home}/huggingface", home)
    assert config.model.architecture == architecture
    text = (tmp_path / "fit.toml").read_text(encoding="utf-8")
    head = " ".join(line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#"))
    assert f"python scripts/convert_hf_to_mcore.py --load-dir '{model}' --save-dir {home}" in head


def test_a_converted_model_is_its_own_checkpoint_and_nothing_is_left_to_fill_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "Mine-torch_dist" / "huggingface"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(tiny_fields("legal")), encoding="utf-8")
    config = run_file(tmp_path, capsys, str(model), *SHORT, "--shared", f"{tmp_path}/")
    assert (config.run.name, config.model.checkpoint) == ("Mine", str(model.parent))
    assert config.data.train_path == f"{tmp_path}/deepscaler/train.parquet"
    assert config.run.output_dir == f"{tmp_path}/runs"


def test_the_head_says_how_it_was_made_and_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--fit", BIG, *A3, "--prompts", "64", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    head = [line for line in made["run_file"].splitlines() if line.startswith("#")]
    assert max(map(len, head)) <= 102
    said = " ".join(line.removeprefix("#").strip() for line in head)
    assert f"python -m recipe plan --fit {BIG} --hardware a3_128 --prompts 64: the smallest cluster" in said
    assert "it has run nowhere" in said and " of 1862 GiB." in said
    assert made["plan"]["fits"] and str(made["plan"]["layout"]["stage_layers"][0]) in said


def test_on_a_node_its_own_hardware_is_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    node = dataclasses.replace(this_machine(), dies=8)
    monkeypatch.setattr(hardware, "this_machine", lambda: node)
    torch_says = {NPU: DieFacts((int(60.95 * GIB),) * 8, "Ascend910B3")}
    monkeypatch.setattr(hardware.dies_of, "ask_safely", torch_says.__getitem__)
    config = run_file(tmp_path, capsys, "qwen3_8b")
    assert (config.cluster.hardware, config.cluster.device) == ("a2_64", NPU)
    assert "--fit qwen3_8b --hardware a2_64:" in (tmp_path / "fit.toml").read_text(encoding="utf-8")
    torch_says[NPU] = DieFacts((int(29.5 * GIB),) * 8, "Ascend910B4")
    assert main(["plan", "--fit", "qwen3_8b"]) == 2
    said = capsys.readouterr().err
    assert "and this machine has 8 x Ascend910B4 of 29.5 GiB, no hardware that has a name; expected one of" in said
    assert main(["plan", "--fit", "qwen3_8b", "--hardware", "h100_80"]) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([BIG], "--hardware is missing, and this machine has neither NPUs nor GPUs; expected one of a2_64, "),
        (
            ["no_such_model", *A3],
            "--fit no_such_model: neither a directory with config.json nor one of deepseek_v3_671b",
        ),
        ([BIG, "--hardware", "b200"], "--hardware is 'b200'; expected one of "),
        ([BIG, *A3, "--shared", "here"], "--shared is 'here'; expected a directory from the root on"),
        ([BIG, *A3, "--samples", "0"], "--samples is 0; expected 1 or more"),
        ([BIG, *A3, "--host-memory-gib", "nan"], "--host-memory-gib is nan; expected 1 or more"),
        (
            [BIG, *A3, "--max-response-tokens", "200000"],
            f"{BIG} has 163840 positions (max_position_embeddings), and 1024 + 200000 tokens are 201024; take shorter",
        ),
        (
            [BIG, *A3, "--max-response-tokens", "150000"],
            f"{BIG} does not fit on up to 64 nodes of a3_128 with 128 prompts x 8",
        ),
        (["kimi_k2", "--hardware", "a2_64"], "kimi_k2 does not fit on up to 64 nodes of a2_64"),
        ([BIG, "configs/sim.toml"], "expected RUN.toml, or --fit MODEL or --published without one"),
    ],
)
def test_what_cannot_be_is_one_line(options: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = options
    arguments = [*rest, "--fit", first] if rest and not rest[0].startswith("-") else ["--fit", *options]
    assert main(["plan", *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and printed.err.count("\n") == 1 and printed.out == ""
