# SPDX-License-Identifier: Apache-2.0
"""docs/YOUR_MODEL.md, command by command: a tiny Qwen3 for the model, two simulated dies for the node.

What docker does is looked at by tests/docs and tests/container.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.report.metrics import read_steps
from recipe.runfile.config import tomllib
from recipe.runfile.paths import REPO
from recipe.runfile.toml_text import as_toml
from recipe.tiny.build import random_model, save_model
from tests.docs import pages

pytestmark = pytest.mark.slow
COMMANDS = pages.commands("docs/YOUR_MODEL.md")[:10]
STEPS = 2


def simulated(file: Path) -> None:
    """The run that the page makes, on two simulated dies, with two short steps."""
    run = tomllib.loads(file.read_text(encoding="utf-8"))
    run["run"] |= {"steps": STEPS, "save_every": STEPS, "validate_every": 0}
    run["cluster"] = {"nodes": 1, "dies_per_node": 2}
    run["data"] |= {"max_response_tokens": 16}
    run["rollout"] |= {"tensor_parallel": 1, "instances": 2, "memory_share": 0.5}
    run["actor"] |= {"stage_layers": [sum(run["actor"]["stage_layers"])]}
    run["train"] |= {"prompts_per_step": 4}
    run["watch"] = {"entropy_high": "off"}  # of weights that nobody has trained it is as high as can be
    file.write_text(as_toml(run), encoding="utf-8")


def test_from_a_model_on_disk_to_a_trained_one_in_ten_commands(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "my_run.toml"
    model = data / "Qwen3-8B"
    model.mkdir(parents=True)
    save_model(random_model(seed=5, member="qwen3"), model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}), encoding="utf-8")
    shutil.copy(REPO / "data/deepscaler_sample.json", data / "deepscaler.json")

    def typed(line: str) -> subprocess.CompletedProcess[str]:
        words = [word.replace("/data/", f"{data}/") if word != "/data" else str(data) for word in shlex.split(line)]
        words = [str(run) if word == "my_run.toml" else word for word in words]
        words[0] = sys.executable if words[0] == "python3" else words[0]
        out = run if ">" in words else None
        environment = {**os.environ, "RECIPE_RUNS": str(data / "runs")}
        done = subprocess.run(
            words[: words.index(">")] if out else words,
            cwd=REPO, capture_output=True, text=True, timeout=900, env=environment,
        )  # fmt: skip
        if out:
            out.write_text(done.stdout, encoding="utf-8")
        return done

    build, shell, doctor, weights, problems, fit, preflight, rehearsal, launch, export = COMMANDS
    assert build.startswith("docker") and "run_container.sh" in shell
    assert "hardware" in typed(doctor).stdout or "dies" in typed(doctor).stdout
    for line in (weights, problems, fit, preflight):
        done = typed(line)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    done = typed(rehearsal + f" --out {tmp_path / 'rehearsal'} --response-tokens 32 --prompt-tokens 32")
    assert done.returncode == 0 and "OUT OF MEMORY" not in done.stdout, done.stdout + done.stderr
    simulated(run)
    done = typed(launch)
    assert done.returncode == 0, done.stdout + done.stderr
    name = data / "runs" / "Qwen3-8B"
    assert [step.number for step in read_steps(name / "metrics.jsonl") if step.trained] == [1, STEPS]
    done = typed(export.replace("global_step_100", f"global_step_{STEPS}"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert (data / "Qwen3-8B-R1-Zero" / "config.json").is_file()
