# SPDX-License-Identifier: Apache-2.0
"""Secret values of [environment] reach the run's processes, and are in nothing that is written, shown or sent."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recipe.__main__ import main
from recipe.launch.meeting import differing
from recipe.launch.resume import Start
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import LaunchError
from recipe.runfile.inherited import full_environment
from recipe.runfile.masking import HIDDEN, comparable_environment, is_secret, masked, masked_run_file, scrub
from recipe.runfile.paths import REPO
from recipe.runfile.schema import RunConfig
from recipe.runfile.show import as_shell
from recipe.runfile.toml_text import as_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SECRET = "5f0d-secret-9a"
SIM = (REPO / "configs" / "sim.toml").read_text(encoding="utf-8")
KEY = b"the token of this test"


SECRETS = """
WANDB_API_KEY AWS_SECRET_ACCESS_KEY AWS_ACCESS_KEY_ID HF_TOKEN SWANLAB_API_KEY DB_PASSWORD hfToken PGPASSWORD MYSQL_PWD
MY_CREDENTIALS HTTP_AUTH OPENAI_APIKEY GITHUB_PAT SSH_PASSPHRASE
"""
NO_SECRETS = """
TOKENIZERS_PARALLELISM KEYBOARD MONKEY_PATCH MAX_TOKENS AUTHOR RAY_AUTH_MODE SSL_KEY_FILE RAY_AUTH_TOKEN_PATH
SSH_AUTH_SOCK TURKEY COMPASS PATH PATTERN LD_LIBRARY_PATH PYTHONPATH
"""


@pytest.mark.parametrize("name", SECRETS.split())
def test_names_that_say_secret(name: str) -> None:
    assert is_secret(name) and masked({name: SECRET}) == {name: HIDDEN}


@pytest.mark.parametrize("name", NO_SECRETS.split())
def test_names_that_only_look_like_it(name: str) -> None:
    assert not is_secret(name)


def test_a_password_in_an_address_is_one() -> None:
    assert masked({"HTTPS_PROXY": "http://me:pw@proxy:80", "HTTP_PROXY": "http://proxy:80"}) == {
        "HTTPS_PROXY": HIDDEN, "HTTP_PROXY": "http://proxy:80",
    }  # fmt: skip


# The ways to write the section.
WRITTEN = {
    "section": f'[environment]\nHF_TOKEN = "{SECRET}"  # mine\nOTHER = "1"\n',
    "literal": f"[environment]\n  HF_TOKEN = '{SECRET}'\nOTHER = '1'\n",
    "quoted name": f'[environment]\n"HF_TOKEN" = "{SECRET}"\nOTHER="1"\n',
    "dotted": f'environment.HF_TOKEN = "{SECRET}"\nenvironment.OTHER = "1"\n',
    "inline": f'environment = {{ OTHER = "1", HF_TOKEN = "{SECRET}" }}\n',
    "several lines": f'[environment]\nHF_TOKEN = """\n{SECRET}"""\nOTHER = "1"\n',
    "literal of several lines": f"[environment]\nHF_TOKEN = '''{SECRET}'''\nOTHER = \"1\"\n",
    "escaped": '[environment]\nHF_TOKEN = "\\u0035f0d-secret-9a"\nOTHER = "1"\n',
    "said twice": f'# HF_TOKEN = "{SECRET}"\n[environment]\nHF_TOKEN = "{SECRET}"\nOTHER = "1" # {SECRET}\n',
    "an escaped name": f'[environment]\n"HF\\u005FTOKEN" = "{SECRET}"\nOTHER = "1"\n',
    "Windows": f'\ufeff[environment]\r\nHF_TOKEN = "{SECRET}"\r\nOTHER = "1"\r\n',
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=list(WRITTEN))
def test_the_copy_of_a_run_file_is_the_file_without_the_values(text: str) -> None:
    copy = masked_run_file(text)
    assert SECRET not in copy
    assert tomllib.loads(copy.removeprefix("\ufeff")) == {"environment": {"HF_TOKEN": HIDDEN, "OTHER": "1"}}


def test_what_is_no_secret_is_copied_byte_for_byte() -> None:
    assert masked_run_file(SIM) == SIM
    text = SIM + f'[environment]\nWANDB_API_KEY = "{SECRET}" # mine\n'
    assert masked_run_file(text) == text.replace(SECRET, HIDDEN)
    broken = f'[environment\nWANDB_API_KEY = "{SECRET}"\n'
    assert masked_run_file(broken) == broken.replace(SECRET, HIDDEN)


PLAIN = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)
VALUES = st.recursive(
    PLAIN | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PLAIN, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(PLAIN, VALUES, max_size=4), st.text(st.characters(exclude_categories=["Cs"]), min_size=6))
def test_no_text_hides_a_secret_from_the_copy(values: dict[str, object], secret: str) -> None:
    assume(secret not in json.dumps(values, ensure_ascii=False) and secret not in HIDDEN and secret.strip())
    given_values = values | {"environment": {"HF_TOKEN": secret, "OTHER": "1"}}
    text = as_toml(given_values)
    assert tomllib.loads(text) == given_values
    copy = masked_run_file(text)
    assert tomllib.loads(copy) == values | {"environment": {"HF_TOKEN": HIDDEN, "OTHER": "1"}}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(SIM + f'[environment]\nWANDB_API_KEY = "{SECRET}"\nVLLM_API_KEY = "{SECRET}2"\n', encoding="utf-8")
    return path


def config_of(file: Path, secret: str = SECRET) -> RunConfig:
    return dataclasses.replace(load(file), environment={"WANDB_API_KEY": secret})


@pytest.mark.parametrize("form", [[], ["--json"], ["--shell"]], ids=str)
def test_show_does_not_show_them(file: Path, form: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(file), *form]) == 0
    told = capsys.readouterr().out
    assert "WANDB_API_KEY" in told and SECRET not in told
    assert form == ["--shell"] or HIDDEN in told


@pytest.mark.parametrize("is_set", [True, False])
def test_the_shell_script_takes_them_from_where_it_is_started(file: Path, tmp_path: Path, is_set: bool) -> None:
    script = tmp_path / "run.sh"
    script.write_text(as_shell(derive_run(load(file)).complete()), encoding="utf-8")
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s %s" "$WANDB_API_KEY" "$VLLM_API_KEY"\n', encoding="ascii")
    (tmp_path / "python").chmod(0o755)
    given_values = {"WANDB_API_KEY": SECRET, "VLLM_API_KEY": "another"} if is_set else {"WANDB_API_KEY": SECRET}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", **given_values}
    command = ["bash", str(script)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    if is_set:
        assert (done.returncode, done.stdout) == (0, f"{SECRET} another")
    else:
        assert done.returncode != 0 and done.stdout == ""
        assert "VLLM_API_KEY: is not set; its value is secret and is not in this script" in done.stderr


def test_the_run_s_processes_get_them(file: Path) -> None:
    assert full_environment(derive_run(load(file)).complete().environment)["WANDB_API_KEY"] == SECRET


@pytest.mark.parametrize("line", ["WANDB_API_KEY = 123456789", 'WANDB_API_KEY = "123456789\\n"', '"a.b" = "123456789"'])
def test_mistakes_are_told_without_them(tmp_path: Path, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.toml"
    path.write_text(SIM + f"[environment]\n{line}\n", encoding="utf-8")
    assert main(["show", str(path)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "environment" in told and "123456789" not in told


def test_nodes_compare_them_without_telling_them(file: Path) -> None:
    ours = comparable_environment(config_of(file).environment, KEY)
    theirs = comparable_environment(config_of(file, "something else").environment, KEY)
    assert ours == comparable_environment(config_of(file).environment, KEY)
    (line,) = differing({"environment": ours}, {"environment": theirs})
    assert line.startswith("[environment] WANDB_API_KEY is '(hidden, digest ")
    assert SECRET not in line and "something else" not in line
    assert ours != comparable_environment(config_of(file).environment, b"another token of a cluster")


def test_an_error_that_quotes_one_is_told_without_it(file: Path) -> None:
    error = LaunchError(f"the driver failed: ValueError: bad key {SECRET}")
    scrub(error, config_of(file).environment)
    assert str(error) == f"the driver failed: ValueError: bad key {HIDDEN}"


def test_the_run_s_files_do_not_hold_them(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from recipe.launch import run
    from recipe.launch.training import describe
    from recipe.report.make import make_report
    from recipe.runfile.paths import RunPaths

    def fail(config: RunConfig, paths: object, start: Start, *_: object) -> None:
        environment = derive_run(config).complete().environment
        describe(derive_run(config), start, [], environment, None)
        (start.run_dir / "metrics.jsonl").write_text("", encoding="utf-8")
        raise LaunchError(f"the driver failed: bad key {SECRET}")

    monkeypatch.setattr(run, "drive", fail)
    monkeypatch.setenv("RECIPE_RUNS", str(tmp_path / "runs"))
    assert main(["launch", str(file)]) == 1
    assert SECRET not in "".join(capsys.readouterr())
    run_dir = tmp_path / "runs" / "sim"
    make_report(run_dir)
    assert RunPaths(run_dir, "", Path()).run_dir.is_dir()
    written = [path for path in run_dir.rglob("*") if path.is_file()]
    assert {"command.json", "run.toml", "result.json", "report.html"} <= {path.name for path in written}
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []


def test_a_run_goes_on_with_another_key(file: Path, tmp_path: Path) -> None:
    from recipe.runfile.settings import differences

    before = json.loads(json.dumps(config_of(file).described()))
    assert differences(before, config_of(file, os.urandom(8).hex())) == []
