# SPDX-License-Identifier: Apache-2.0
"""Settings of verl behind the options, with `--` before them or without, of everything that takes a run file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from recipe.__main__ import main

REPO = Path(__file__).resolve().parents[2]
SIM = str(REPO / "configs" / "sim.toml")
OURS, SAID = "trainer.n_gpus_per_node=8", "trainer.n_gpus_per_node follows from cluster.dies_per_node of the run file"


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", SIM, "--", OURS],
        ["show", SIM, "--json", OURS],
        ["launch", SIM, "--steps", "2", "--", OURS],
        ["node", SIM, "--no-preflight", "--", OURS],
        ["preflight", SIM, "--no-cluster", "--", OURS],
        ["plan", SIM, "--", OURS],
        ["rehearse", SIM, "--", OURS],
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_command_refuses_what_is_ours(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECIPE_RUNS", str(tmp_path))
    assert main(arguments) == 2
    assert SAID in "".join(capsys.readouterr())


@pytest.mark.parametrize("marked", [True, False])
def test_show_has_them_after_what_is_derived(marked: bool, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", SIM, *(["--"] if marked else []), "trainer.log_val_generations=4"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "# settings of verl, as given",
        "trainer.log_val_generations=4",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["report", "run", "--", "a=1"], "unrecognized arguments: a=1"),
        (["show", SIM, "word"], "unrecognized arguments: word"),
        (["show", SIM, "--unknown=3"], "unrecognized arguments: --unknown=3"),
    ],
)
def test_what_is_no_setting_is_unrecognized(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("marked", [["--"], []], ids=["marked", "plain"])
@pytest.mark.parametrize("script", ["launch.sh", "train_deepseekv3_256die_random_init.sh"])
def test_the_scripts_pass_them_on(script: str, marked: list[str], tmp_path: Path) -> None:
    file = [SIM] if script == "launch.sh" else []
    done = subprocess.run(
        ["bash", str(REPO / "scripts" / script), *file, "--no-preflight", *marked, "trainer.logger"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    expected = "expected KEY=VALUE" if marked else "unrecognized arguments: trainer.logger"
    assert done.returncode == 2 and expected in done.stderr, done.stderr
