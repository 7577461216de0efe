# SPDX-License-Identifier: Apache-2.0
"""What is made before a run: lengths, validation rows, and the cache."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pyarrow
import pyarrow.parquet
import pytest

from recipe.launch.cache import cached, digest
from recipe.launch.prepare import _run, padded_prompt_tokens, prepare, template_files
from recipe.launch.validation_rows import write_validation_rows
from recipe.models.published import CONFIGS
from recipe.reward.processes.tier3 import GRADERS
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.paths import REPO
from recipe.runfile.schema import RunConfig

# A problem as verl reads it.
ROW = {
    "prompt": [{"role": "user", "content": "1 + 1"}],
    "reward_model": {"style": "rule", "ground_truth": "2"},
    "data_source": "sums",
}


def test_the_longest_prompt_that_fits_sets_the_length() -> None:
    lines: list[str] = []
    assert padded_prompt_tokens([3, 9, 13], 512, lines.append) == 16
    assert padded_prompt_tokens([3, 9, 13], 13, lines.append) == 13
    assert lines == []
    assert padded_prompt_tokens([3, 9, 13], 10, lines.append) == 10
    assert lines == ["data: 1 of 3 prompts have over 10 tokens and are left out"]


@pytest.mark.parametrize(
    ("lengths", "expected"), [([20, 30], "the shortest prompt has 20 tokens"), ([], "no problems")]
)
def test_data_without_a_fitting_prompt_is_refused(lengths: list[int], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        padded_prompt_tokens(lengths, 10, print)


def test_validation_rows(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"n": [0, 1, 2, 3]}), tmp_path / "test.parquet")
    write_validation_rows(tmp_path / "test.parquet", 3, 2, tmp_path / "out.parquet")
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet")["n"].to_pylist() == [0, 1, 2, 0, 1, 2]


def test_a_template_of_the_user_s_is_among_what_the_problems_are_made_from(tmp_path: Path) -> None:
    own = tmp_path / "mine.toml"
    with pytest.raises(ConfigError, match=r"mine\.toml is not a file"):
        template_files(f"{own}:short")
    own.write_text("")
    assert template_files(str(own)) == template_files(f"{own}:short") == [own]
    (ours,) = template_files("r1_zero")
    assert "[r1_zero]" in ours.read_text(encoding="utf-8")


def test_a_grader_that_is_not_installed_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load(REPO / "configs" / "sim.toml")
    config = dataclasses.replace(config, reward=dataclasses.replace(config.reward, workers=1, tier3="math_verify"))
    monkeypatch.setitem(GRADERS, "math_verify", "no_such_package")
    with pytest.raises(ConfigError, match=r"^\[reward\] tier3 = 'math_verify' needs packages that are not"):
        prepare(config, print, tmp_path / "logs" / "prepare.log")
    assert list(tmp_path.iterdir()) == []


def test_what_is_cached_is_made_once_and_whole(tmp_path: Path) -> None:
    made = []

    def slow(directory: Path) -> None:
        made.append(directory)
        (directory / "first").touch()
        time.sleep(0.3)
        (directory / "second").touch()

    results: list[tuple[Path, bool]] = []
    threads = [threading.Thread(target=lambda: results.append(cached(tmp_path, "kind", "key", slow))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert sorted(was_cached for _, was_cached in results) == [False, True, True]
    assert {path.name for path in results[0][0].iterdir()} == {"first", "second"}


def test_what_failed_is_not_cached(tmp_path: Path) -> None:
    def fails(directory: Path) -> None:
        (directory / "half").touch()
        raise LaunchError("no")

    with pytest.raises(LaunchError):
        cached(tmp_path, "kind", "key", fails)
    path, was_cached = cached(tmp_path, "kind", "key", lambda directory: (directory / "whole").touch())
    assert not was_cached and [item.name for item in path.iterdir()] == ["whole"]


def test_the_digest_follows_settings_and_contents(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("one", encoding="utf-8")
    first = digest({"seed": 1}, [file])
    assert first == digest({"seed": 1}, [file]) != digest({"seed": 2}, [file])
    file.write_text("two", encoding="utf-8")
    assert first != digest({"seed": 1}, [file])


def test_a_failing_tool_is_one_line_with_its_last_words(tmp_path: Path) -> None:
    log = tmp_path / "prepare.log"
    with pytest.raises(LaunchError) as caught:
        _run("-c", "print('trying'); raise SystemExit('error: no such model')", log=log)
    assert str(caught.value) == f"-c failed with exit code 1: error: no such model (log: {log})"
    assert log.read_text(encoding="utf-8").startswith("trying\n")


def on_a_cluster(tmp_path: Path, **model: object) -> RunConfig:
    """The 256-die run with its files in `tmp_path`: a config.json, a checkpoint and two Parquet files."""
    config = load(REPO / "configs" / "a3_256die.toml")
    for name in ("hf/config.json", "torch_dist/.metadata", "train.parquet", "test.parquet"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    for name in ("train.parquet", "test.parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW]), tmp_path / name)
    (tmp_path / "hf" / "config.json").write_text(json.dumps(published_config()), encoding="utf-8")
    paths = {"path": str(tmp_path / "hf"), "checkpoint": str(tmp_path / "torch_dist")}
    data = {"train_path": str(tmp_path / "train.parquet"), "validation_path": str(tmp_path / "test.parquet")}
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, **(paths | model)),
        data=dataclasses.replace(config.data, **data),
    )


def published_config() -> dict[str, object]:
    quantised = CONFIGS["deepseek_v3_671b"] | {"num_nextn_predict_layers": 0}
    return {name: value for name, value in quantised.items() if name != "quantization_config"}


def test_a_tool_ends_with_a_launcher_that_is_killed(tmp_path: Path) -> None:
    tool = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(f'{{os.getpid()}} '); time.sleep(300)"
    code = f"import pathlib as p; from recipe.launch.prepare import _run; _run('-c', {tool!r}, log=p.Path('/dev/null'))"
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=REPO)
    end = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text().endswith(" "):
        assert launcher.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process = psutil.Process(int((tmp_path / "pid").read_text()))
    launcher.kill()
    launcher.wait()
    assert psutil.wait_procs([process], timeout=10)[1] == []


def test_on_a_cluster_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipe.launch.prepare._run", lambda *arguments, log: pytest.fail(f"ran {arguments}"))
    inputs = prepare(on_a_cluster(tmp_path), lambda line: None, tmp_path / "log")
    assert inputs.checkpoint == tmp_path / "torch_dist"
    assert (inputs.train, inputs.validation) == (tmp_path / "train.parquet", tmp_path / "test.parquet")
    assert inputs.prompt_tokens == 1024
    # As `show` says it on a machine that sees nothing of this.
    shown = derive_run(load(REPO / "configs" / "a3_256die.toml"))
    assert derive_run(on_a_cluster(tmp_path), inputs).transformer == shown.transformer
    random = on_a_cluster(tmp_path, kind="random_init", checkpoint=None)
    assert prepare(random, lambda line: None, tmp_path / "log").checkpoint is None


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("hf/config.json", "holds no config.json"),
        ("torch_dist/.metadata", "[model] checkpoint: "),
        ("train.parquet", "[data] train_path: "),
        ("test.parquet", "[data] validation_path: "),
    ],
)
def test_on_a_cluster_what_is_missing_is_named(tmp_path: Path, missing: str, expected: str) -> None:
    config = on_a_cluster(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ConfigError) as caught:
        prepare(config, lambda line: None, tmp_path / "log")
    assert expected in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("prompt", "1 + 1", "column prompt is string, not a list of messages"),
        ("prompt", ["1 + 1"], "column prompt is list<element: string>, not a list of messages"),
        ("prompt", None, "column prompt is null"),
        ("reward_model", '{"ground_truth": "2"}', "column reward_model is string, not a struct"),
    ],
)
def test_problems_in_another_form_are_refused_before_anything_is_started(
    tmp_path: Path, column: str, value: object, expected: str
) -> None:
    config = on_a_cluster(tmp_path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([ROW | {column: value}]), tmp_path / "test.parquet")
    with pytest.raises(ConfigError) as caught:
        prepare(config, lambda line: None, tmp_path / "log")
    assert f"[data] validation_path: {tmp_path / 'test.parquet'}: {expected}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_another_model_than_the_run_files_is_refused(tmp_path: Path) -> None:
    config = on_a_cluster(tmp_path)
    smaller = published_config() | {"n_routed_experts": 64, "num_hidden_layers": 27}
    (tmp_path / "hf" / "config.json").write_text(json.dumps(smaller), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"differs from .* in layers, experts; correct one of them"):
        prepare(config, lambda line: None, tmp_path / "log")
