# SPDX-License-Identifier: Apache-2.0
"""What a stage's process is asked, and the environment that it has."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from recipe.models.families import describe, require_converted
from recipe.models.published import CONFIGS, KNOWN
from recipe.rehearse.job import Job
from recipe.rehearse.jobs import environment, make_description_jobs, make_job
from recipe.rehearse.lengths import Lengths
from recipe.rehearse.model_files import config_json, make_model
from recipe.rehearse.subject import Rehearsed, rehearsed
from recipe.runfile.config import load
from recipe.runfile.paths import REPO
from tests.recipe.rehearse.made_up import TRUE_SIZE, a_run


def test_the_process_is_a_die_of_the_run_on_one_simulated_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_DP_SIZE", "7")
    monkeypatch.setenv("RANK", "3")
    run = a_run()
    found = environment(run, 1, tmp_path / "model", tmp_path)
    assert (found["RANK"], found["WORLD_SIZE"], found["LOCAL_RANK"]) == ("32", "256", "0")
    assert (found["NPU_SIM_DEVICES"], found["NPU_SIM_STRICT"]) == ("1", "1")
    assert found["NPU_SIM_HBM"] == f"{run.given.hbm_bytes_per_die // 2**20}MiB"
    assert found["NPU_SIM_OUTSIDE"] == f"{run.outside_bytes // 2**20}MiB" and found["HCCL_BUFFSIZE"] == "300"
    assert found["VLLM_DP_SIZE"] == "128" and found["VLLM_ASCEND_ENABLE_TOPK_OPTIMIZE"] == "1"


def test_the_job_is_what_a_launch_tells_verl_with_a_die_s_part_of_a_step(tmp_path: Path) -> None:
    job = make_job(a_run(prompt=100), 1, tmp_path / "model", tmp_path)
    told = dict(one.split("=", 1) for one in job.overrides)
    prefix = "actor_rollout_ref.actor.megatron."
    assert told[f"{prefix}pipeline_model_parallel_size"] == "8" and told[f"{prefix}expert_model_parallel_size"] == "32"
    assert told["actor_rollout_ref.model.path"] == str(tmp_path / "model")
    assert told["actor_rollout_ref.actor.load_weight"] == "false" and told["trainer.device"] == "npu"
    assert not [one for one in job.overrides if one.startswith("hydra.")]
    assert (job.rank, job.world_size, job.lengths) == (32, 256, Lengths.equal(100, 3072, 1024, 3072))
    assert job.forward_sequences == 8 and job.update_sequences == 8 and job.old_log_probs


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    job = make_job(a_run(), 1, tmp_path / "model", tmp_path)
    lengths = Lengths(((5, 2), (9, 1)), ((1, 1), (30, 4)), 1024, 3072)
    job = dataclasses.replace(job, lengths=lengths, described=("a", "b"))
    job.write(tmp_path / "job.json")
    assert Job.read(tmp_path / "job.json") == job


def test_a_result_is_of_its_settings(tmp_path: Path) -> None:
    jobs = [
        make_job(run, stage, tmp_path / "model", tmp_path)
        for run, stage in ((a_run(), 1), (a_run(), 2), (a_run(response=5), 1), (a_run(steps=2), 1))
    ]
    assert len({job.key for job in jobs}) == len(jobs)
    assert make_job(a_run(), 1, tmp_path / "model", tmp_path) == jobs[0]


def test_descriptions_outlive_a_change_that_leaves_the_tensors_as_they_are(tmp_path: Path) -> None:
    def keys(run: Rehearsed) -> list[str]:
        return [job.key for job in make_description_jobs(run, tmp_path / "model", tmp_path)]

    run = a_run()
    found = keys(run)
    # The first stage, the last, and those between, which are alike.
    assert [found.index(key) for key in found] == [0, 1, 1, 1, 1, 1, 1, 7]
    for section, change, same in (
        ("rollout", {"memory_share": 0.5}, True),
        ("train", {"prompts_per_step": 256}, True),
        ("actor", {"expert_parallel": 16}, False),
    ):
        config = dataclasses.replace(run.given, **{section: dataclasses.replace(getattr(run.given, section), **change)})
        assert (keys(rehearsed(config, run.options, Path("/nowhere"))) == found) is same, section


def test_the_model_is_the_architecture_s_where_its_own_config_cannot_be_seen(tmp_path: Path) -> None:
    config = load(REPO / TRUE_SIZE)
    make_model(config, tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert describe(written) == KNOWN["deepseek_v3_671b"]
    assert "quantization_config" not in written and written["num_nextn_predict_layers"] == 0
    assert (tmp_path / "tokenizer.json").is_file()
    tiny = config_json(load(REPO / "configs/sim.toml"))
    assert tiny["num_hidden_layers"] == 4 and tiny["n_routed_experts"] == 8


@pytest.mark.parametrize("name", CONFIGS)
def test_an_architecture_is_rehearsed_as_what_a_converter_writes(name: str) -> None:
    config = load(REPO / TRUE_SIZE)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, architecture=name))
    written = config_json(config)
    require_converted(written)
    assert describe(written) == KNOWN[name]
