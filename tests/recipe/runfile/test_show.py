# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe show`: what it prints for a shell makes the very environment and command of a launch."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.runfile.config import load
from recipe.runfile.derive import Derived, derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.inherited import full_environment
from recipe.runfile.schema import RunConfig
from recipe.runfile.show import as_shell

REPO = Path(__file__).resolve().parents[3]
CONFIGS = sorted((REPO / "configs").glob("*.toml"))
# Left in the shell by other jobs; a launch starts without them.
LEFT_OVER = {
    "VLLM_DP_SIZE": "7",
    "VLLM_DP_MASTER_PORT": "1",
    "RAY_ADDRESS": "10.0.0.9:6379",
    "HCCL_IF_BASE_PORT": "64247",
    "HCCL_EXEC_TIMEOUT": "1",
    "PYTORCH_NPU_ALLOC_CONF": "max_split_size_mb:1",
    "NPU_SIM_SLOTS": "/nowhere",
    "RANK": "3",
    "ASCEND_RT_VISIBLE_DEVICES": "",
}
KEPT = {
    "LC_ALL": "C.UTF-8",
    "ASCEND_HOME_PATH": "/usr/local/Ascend",
    "LD_LIBRARY_PATH": "/a:/b c",
    "MULTI": "one\ntwo",
    "PYTHONPATH": "/usr/local/Ascend/python/site-packages:/home/me/lib::/usr/local/Ascend/opp/t b e:/usr/local/Asc",
}
OF_BASH = {"PWD", "OLDPWD", "SHLVL", "_"}


def awkward(config: RunConfig) -> RunConfig:
    """Values with everything that a shell could take for something else."""
    nasty = '/runs/it\'s $(touch /tmp/evaluated) `id` "$HOME" \\ ; & *\nnext'
    return dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, output_dir=nasty),
        environment={"HCCL_DEBUG_NOTE": nasty, "EMPTY": ""},
    )


def cases() -> list[tuple[str, RunConfig]]:
    every = [(path.stem, load(path)) for path in CONFIGS]
    return [*every, ("awkward", awkward(load(REPO / "configs" / "a3_256die.toml")))]


def run_in_bash(script: Path, inherited: dict[str, str], tmp_path: Path) -> tuple[dict[str, str], list[str]]:
    """Environment and arguments of the `python` that the script starts, which is replaced by one that tells them."""
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    told = tmp_path / "told.json"
    teller = tools / "python"
    teller.write_text(
        f"#!{sys.executable} -I\nimport json, os, sys\n"
        f"json.dump([dict(os.environ), sys.argv[1:]], open({str(told)!r}, 'w'))\n",
        encoding="utf-8",
    )
    teller.chmod(0o755)
    bash = shutil.which("bash")
    assert bash
    path = os.pathsep.join([str(tools), "/usr/bin", "/bin"])
    done = subprocess.run(
        [bash, str(script)], env=inherited | {"PATH": path}, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    environment, arguments = json.loads(told.read_text(encoding="utf-8"))
    return {name: value for name, value in environment.items() if name not in (*OF_BASH, "PATH")}, arguments


@pytest.mark.parametrize(("name", "config"), cases(), ids=lambda value: value if isinstance(value, str) else "")
def test_the_shell_script_makes_the_environment_and_the_command_of_a_launch(
    tmp_path: Path, name: str, config: RunConfig
) -> None:
    shown = derive_run(config).complete()
    script = tmp_path / "run.sh"
    script.write_text(as_shell(shown) + "\n", encoding="utf-8")
    shellcheck = Path(sys.executable).parent / "shellcheck"
    # Its remarks on $ and \\ between single quotes are below a warning.
    severity = "--severity=warning" if name == "awkward" else "--severity=style"
    command = [str(shellcheck), severity, str(script)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stdout
    environment, arguments = run_in_bash(script, LEFT_OVER | KEPT, tmp_path)
    launched = full_environment(shown.environment, LEFT_OVER | KEPT)
    launched.pop("TMPDIR")  # made by a launch, which removes it
    assert environment == launched
    assert arguments == shown.arguments
    assert not Path("/tmp/evaluated").exists()


def test_the_command_prints_what_it_derives_in_three_forms() -> None:
    def show(*options: str) -> str:
        command = [sys.executable, "-m", "recipe", "show", str(REPO / "configs" / "sim.toml"), "--steps", "7", *options]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=REPO).stdout

    lines = show().splitlines()
    assert "VLLM_DP_SIZE=2" in lines and "trainer.total_training_steps=7" in lines
    assert "export VLLM_DP_SIZE=2" in show("--shell").splitlines()
    told = json.loads(show("--json"))
    assert told["environment"]["VLLM_DP_SIZE"] == "2"
    assert told["layout"]["sequences_per_step"] == 256
    assert told["config"]["run"]["steps"] == 7


def shown_of(name: str) -> Derived:
    return derive_run(load(REPO / "configs" / f"{name}.toml")).complete()


def test_settings_of_the_simulator_stay_out_of_real_runs() -> None:
    simulated = shown_of("sim").environment
    for name in ("a3_256die", "a3_256die_true_weight", "a3_256die_random_init", "a3_384die_base_acc"):
        environment = shown_of(name).environment
        assert not [key for key in environment if key.startswith("NPU_SIM_")]
        for key in (
            "OMP_NUM_THREADS",
            "TORCHDYNAMO_DISABLE",
            "GLOO_SOCKET_IFNAME",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
        ):
            assert key in simulated and key not in environment
        assert environment["PYTORCH_NPU_ALLOC_CONF"] == "expandable_segments:True"
    assert not [key for key in simulated if key.startswith("HCCL_")]
    gpus = shown_of("h20_128gpu_math_lighteval").environment
    assert not [
        key for key in gpus if key.startswith(("NPU_SIM_", "HCCL_", "VLLM_ASCEND_", "PYTORCH_NPU", "TASK_QUEUE"))
    ]


def test_sampling_from_a_part_takes_the_operators_of_the_npu() -> None:
    assert shown_of("a3_256die_true_weight").environment["VLLM_ASCEND_ENABLE_TOPK_OPTIMIZE"] == "1"
    assert "VLLM_ASCEND_ENABLE_TOPK_OPTIMIZE" not in shown_of("a3_256die").environment


def test_a_named_interface_is_used_by_everything_that_connects() -> None:
    config = load(REPO / "configs" / "a3_256die.toml")
    config = dataclasses.replace(config, cluster=dataclasses.replace(config.cluster, interface="bond0"))
    environment = derive_run(config).complete().environment
    for name in ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME"):
        assert environment[name] == "bond0"


@pytest.mark.parametrize("name", ["VLLM_DP_SIZE", "HCCL_IF_BASE_PORT", "RANK", "ASCEND_RT_VISIBLE_DEVICES"])
def test_a_variable_that_is_derived_cannot_be_set_beside_it(name: str) -> None:
    config = dataclasses.replace(load(REPO / "configs" / "a3_256die.toml"), environment={name: "1"})
    with pytest.raises(ConfigError, match=rf"\[environment\] {name} follows from the other sections"):
        derive_run(config).complete()


def test_more_variables_reach_every_process() -> None:
    config = dataclasses.replace(load(REPO / "configs" / "a3_256die.toml"), environment={"HCCL_LOG": "x"})
    assert derive_run(config).complete().environment["HCCL_LOG"] == "x"
