# SPDX-License-Identifier: Apache-2.0
"""A rerun goes on from a whole checkpoint, or says why not; nothing of an earlier attempt is lost."""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from recipe.clock import Clock
from recipe.launch import attempts, cli, node_cli, options, resume
from recipe.launch.errors import AlreadyFinished
from recipe.launch.resume import ResumeRequest, Start, begin_attempt, only_launcher, open_run
from recipe.report.marks import SETTING, WARNING, Mark, add_mark, read_marks
from recipe.runfile.config import load
from recipe.runfile.errors import ConfigError, LaunchError
from recipe.runfile.paths import REPO, RunPaths
from recipe.runfile.schema import RunConfig
from tests.recipe.saved import save, save_unfinished, unsynced

__all__ = ["unsynced"]
pytestmark = pytest.mark.usefixtures("unsynced")

SIM = load(REPO / "configs" / "sim.toml").with_run(save_every=2, steps=10)
SETTINGS = {"config": json.loads(json.dumps(dataclasses.asdict(SIM))), "accepted": []}
WEIGHTS = "actor/dist_ckpt/__0_0.distcp"


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run that was stopped after step 5 and had saved steps 2 and 4."""
    directory = tmp_path / "sim"
    (directory / "logs").mkdir(parents=True)
    (directory / "logs" / "driver.log").write_text("first attempt")
    (directory / "command.json").write_text(json.dumps(SETTINGS))
    (directory / "result.json").write_text("{}")
    lines = [json.dumps({"step": step, "data": {}}) for step in range(6)]
    (directory / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 6, "da')
    (directory / "validation").mkdir()
    for step in (0, 3, 5):
        (directory / "validation" / f"{step}.jsonl").write_text("answers")
    for step in (2, 4):
        save(directory / "checkpoints", step, SETTINGS)
    return directory


def opened(
    run_dir: Path, config: RunConfig = SIM, request: ResumeRequest | None = None, checkpoints: Path | None = None
) -> tuple[Start, str]:
    printed = io.StringIO()
    start = open_run(config, RunPaths(run_dir, "", Path(), checkpoints), request or ResumeRequest(), Clock(printed))
    return start, printed.getvalue()


def gone_on(run_dir: Path, config: RunConfig = SIM, request: ResumeRequest | None = None) -> Start:
    start, _ = opened(run_dir, config, request)
    begin_attempt(start, run_dir / "checkpoints")
    return start


def logged(run_dir: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def with_(section: str, **values: Any) -> RunConfig:
    return dataclasses.replace(SIM, **{section: dataclasses.replace(getattr(SIM, section), **values)})


def test_it_goes_on_after_the_last_checkpoint(run_dir: Path) -> None:
    start, printed = opened(run_dir)
    assert start.checkpoint == run_dir / "checkpoints" / "global_step_4" and start.step == 4
    assert f"going on in {run_dir} from its checkpoint of step 4" in printed and "passed over" not in printed
    (run_dir / "nodes" / "10.0.0.2" / "logs").mkdir(parents=True)
    (run_dir / "nodes" / "10.0.0.2" / "logs" / "ray-start.log").write_text("of the first attempt")
    begin_attempt(start, run_dir / "checkpoints")
    assert logged(run_dir) == [0, 1, 2, 3, 4]
    aside = run_dir / "attempts" / "1"
    assert (aside / "logs" / "driver.log").read_text() == "first attempt"
    assert (aside / "nodes" / "10.0.0.2" / "logs" / "ray-start.log").read_text() == "of the first attempt"
    assert (aside / "metrics.jsonl").read_text().endswith('{"step": 6, "da')
    assert sorted(path.name for path in (run_dir / "validation").iterdir()) == ["0.jsonl", "3.jsonl"]
    assert [path.name for path in (aside / "validation").iterdir()] == ["5.jsonl"]
    assert (run_dir / "logs").is_dir() and not (run_dir / "result.json").exists()
    assert start.overrides() == [
        "trainer.resume_mode=resume_path",
        f"trainer.resume_from_path={run_dir}/checkpoints/global_step_4",
        "trainer.val_before_train=false",
    ]


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "index emptied": (lambda path: (path / "actor/dist_ckpt/.metadata").write_bytes(b""), ".metadata has 0 bytes"),
    "shard cut": (lambda path: (path / WEIGHTS).write_bytes(b"half"), "has 4 bytes, expected 340"),
    "a rank's file gone": (lambda path: (path / WEIGHTS).unlink(), "__0_0.distcp is missing"),
    "loader's state gone": (lambda path: (path / "data.pt").unlink(), "data.pt is missing"),
    "no manifest": (lambda path: (path / "checkpoint.json").unlink(), "it has no checkpoint.json"),
}


@pytest.mark.parametrize("how", SPOILT)
def test_what_is_not_whole_is_passed_over_and_said(run_dir: Path, how: str) -> None:
    spoil, reason = SPOILT[how]
    spoil(run_dir / "checkpoints" / "global_step_4")
    start, printed = opened(run_dir)
    assert start.step == 2 and "passed over: global_step_4 (" in printed and reason in printed
    assert f"kept, and not gone on from: global_step_4, in {run_dir}/checkpoints/aside" in printed
    begin_attempt(start, run_dir / "checkpoints")
    assert logged(run_dir) == [0, 1, 2]
    assert (run_dir / "checkpoints" / "aside" / "1" / "global_step_4").is_dir()
    assert opened(run_dir)[0].step == 2


@pytest.mark.parametrize("content", ["", "2", "999", "torn\x00"])
def test_verls_note_of_the_last_step_decides_nothing(run_dir: Path, content: str) -> None:
    (run_dir / "checkpoints" / "latest_checkpointed_iteration.txt").write_text(content)
    assert opened(run_dir)[0].step == 4
    gone_on(run_dir)
    # verl would read it, and stop where it is no number.
    assert not (run_dir / "checkpoints" / "latest_checkpointed_iteration.txt").exists()
    assert opened(run_dir)[0].step == 4


def test_a_checkpoint_whose_step_is_not_in_the_metrics_is_done_again(run_dir: Path) -> None:
    lines = (run_dir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run_dir / "metrics.jsonl").write_text("".join(lines[:4]) + lines[4][:9])
    start, printed = opened(run_dir)
    assert start.step == 2 and "global_step_4 (metrics.jsonl has no line of step 4)" in printed
    # Not where that would lose all of it, or where it is asked for.
    assert opened(run_dir, request=ResumeRequest(from_step=4))[0].step == 4
    (run_dir / "metrics.jsonl").unlink()
    assert gone_on(run_dir).step == 4


def test_checksums_are_compared_when_that_is_asked_for(run_dir: Path) -> None:
    path = run_dir / "checkpoints" / "global_step_4" / WEIGHTS
    path.write_bytes(bytes(path.stat().st_size))
    assert opened(run_dir)[0].step == 4
    start, printed = opened(run_dir, request=ResumeRequest(verify=True))
    assert start.step == 2 and f"passed over: global_step_4 ({WEIGHTS} is not what was written" in printed
    assert "global_step_2: every file has the SHA-256 of its manifest" in printed
    with pytest.raises(ConfigError, match=r"--from-step 4: .* \(actor/.* is not what was written"):
        opened(run_dir, request=ResumeRequest(from_step=4, verify=True))


def test_an_earlier_checkpoint_by_its_step(run_dir: Path) -> None:
    add_mark(run_dir, Mark(2, WARNING, "entropy", "low"))
    add_mark(run_dir, Mark(5, WARNING, "entropy", "lower"))
    start = gone_on(run_dir, request=ResumeRequest(from_step=2))
    assert start.step == 2 and logged(run_dir) == [0, 1, 2]
    assert [mark.step for mark in read_marks(run_dir)] == [2]
    assert len(read_marks(run_dir / "attempts" / "1")) == 2
    # What came after it is kept, and never again taken for the newest.
    assert (run_dir / "checkpoints" / "aside" / "1" / "global_step_4" / "checkpoint.json").is_file()
    assert gone_on(run_dir).step == 2
    assert not (run_dir / "checkpoints" / "latest_checkpointed_iteration.txt").exists()


@pytest.mark.parametrize(("step", "why"), [(3, "there is none"), (4, "data.pt is missing")])
def test_a_step_without_a_whole_checkpoint_is_refused_with_those_there_are(run_dir: Path, step: int, why: str) -> None:
    (run_dir / "checkpoints" / "global_step_4" / "data.pt").unlink()
    before = sorted(run_dir.rglob("*"))
    with pytest.raises(ConfigError, match=rf"--from-step {step}: .*\({why}\); whole are those of steps: 2$"):
        opened(run_dir, request=ResumeRequest(from_step=step))
    assert sorted(run_dir.rglob("*")) == before
    with pytest.raises(ConfigError, match=r"--from-step 3: there is no .*none, so nothing to go on from"):
        opened(run_dir.with_name("none"), request=ResumeRequest(from_step=3))


def test_nothing_begins_anew_by_itself_where_there_may_be_a_checkpoint(run_dir: Path) -> None:
    for step in (2, 4):
        (run_dir / "checkpoints" / f"global_step_{step}" / "data.pt").unlink()
    before = sorted(run_dir.parent.rglob("*"))
    with pytest.raises(
        ConfigError, match=r"no checkpoint in .* is whole: global_step_4 \(data.pt is missing\); global"
    ):
        opened(run_dir)
    shutil.rmtree(run_dir / "checkpoints" / "global_step_2")
    shutil.rmtree(run_dir / "checkpoints" / "global_step_4")
    with pytest.raises(ConfigError, match=r"says that checkpoints have been saved here, but there is no global_step_N"):
        opened(run_dir)
    assert len(sorted(run_dir.parent.rglob("*"))) < len(before) and not run_dir.with_name("sim.1").exists()


def test_without_a_checkpoint_it_begins_anew_and_keeps_the_earlier(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "checkpoints")
    save_unfinished(run_dir / "checkpoints", 2)
    start, printed = opened(run_dir)
    assert start == Start(run_dir) and list(run_dir.iterdir()) == [run_dir / "logs"]
    assert "its first checkpoint was not written to its end" in printed
    assert (run_dir.with_name("sim.1") / "metrics.jsonl").is_file()
    assert start.overrides() == ["trainer.resume_mode=disable"]
    start, printed = opened(run_dir)
    assert "it has saved no checkpoint" in printed and run_dir.with_name("sim.2").is_dir()


def test_the_rest_of_a_save_that_was_cut_short_is_out_of_the_way_of_the_next(run_dir: Path) -> None:
    save_unfinished(run_dir / "checkpoints", 6)
    start, printed = opened(run_dir)
    assert start.step == 4 and "passed over: global_step_6 (it was not written to its end)" in printed
    assert "kept" not in printed
    begin_attempt(start, run_dir / "checkpoints")
    assert sorted(path.name for path in (run_dir / "checkpoints").iterdir() if "step" in path.name) == [
        ".removed-global_step_6.1", "global_step_2", "global_step_4",
    ]  # fmt: skip


@pytest.mark.parametrize("way", ["--fresh", "resume"])
def test_anew_if_asked(run_dir: Path, way: str) -> None:
    config = SIM.with_run(resume="never") if way == "resume" else SIM
    start, printed = opened(run_dir, config, ResumeRequest(fresh=way == "--fresh"))
    assert start.checkpoint is None and "asked to begin anew" in printed
    assert (run_dir.with_name("sim.1") / "checkpoints" / "global_step_4").is_dir()


def test_checkpoints_elsewhere_are_kept_apart_too(run_dir: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "fast disk" / "sim"
    save(elsewhere, 5, SETTINGS)
    save(elsewhere, 4, SETTINGS)
    start, _ = opened(run_dir, request=ResumeRequest(from_step=4), checkpoints=elsewhere)
    begin_attempt(start, elsewhere)
    assert (elsewhere / "aside" / "1" / "global_step_5").is_dir()
    opened(run_dir, request=ResumeRequest(fresh=True), checkpoints=elsewhere)
    assert not elsewhere.exists() and elsewhere.with_name("sim.1").is_dir()


def test_checkpoints_of_an_unknown_run_are_not_touched(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere", 8)
    with pytest.raises(ConfigError, match=r"elsewhere holds checkpoints, but .*sim, which would tell what of, is not"):
        opened(tmp_path / "sim", checkpoints=tmp_path / "elsewhere")
    assert not (tmp_path / "sim").exists()


def test_settings_that_leave_the_run_what_it_is_differ_freely(run_dir: Path) -> None:
    config = with_("rollout", memory_share=0.2)
    config = dataclasses.replace(config, environment={"LEVEL": "secret value"})
    start, printed = opened(run_dir, config)
    assert start.step == 4 and start.changed == ()
    assert "the same run under other settings: " in printed and "[rollout] memory_share is 0.2 now and " in printed
    assert "[environment] differs in LEVEL" in printed and "secret value" not in printed


def test_settings_that_change_the_run_are_accepted_by_name(run_dir: Path) -> None:
    config = dataclasses.replace(with_("train", learning_rate=1e-6), rollout=with_("rollout", temperature=0.5).rollout)
    before = sorted(run_dir.rglob("*"))
    with pytest.raises(
        ConfigError, match=r"\[train\] learning_rate is 1e-06 now and 0\.0003 in the checkpoint"
    ) as error:
        opened(run_dir, config, ResumeRequest(accepted=("rollout.temperature",)))
    assert str(error.value).endswith("give --accept train.learning_rate")
    assert sorted(run_dir.rglob("*")) == before
    request = ResumeRequest(accepted=("train.learning_rate", "rollout.temperature"))
    start, printed = opened(run_dir, config, request)
    assert "another run from here on, as accepted: [rollout] temperature is 0.5" in printed
    for _ in range(2):  # the second attempt ends before it has saved anything
        start = gone_on(run_dir, config, request)
        marks = [(mark.step, mark.kind, mark.name) for mark in read_marks(run_dir)]
        assert marks == [(5, SETTING, "rollout.temperature"), (5, SETTING, "train.learning_rate")]
    assert resume.accepted_keys(start.changed) == ["rollout.temperature", "train.learning_rate"]


def test_another_model_is_no_going_on(run_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"of another model: \[model\] warm_start_steps is 7 now and None in the"):
        opened(run_dir, with_("model", warm_start_steps=7))
    with pytest.raises(ConfigError, match=r"--accept model\.kind: a checkpoint of another model cannot"):
        opened(run_dir, request=ResumeRequest(accepted=("model.kind",)))


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("train.learning_rat", r"there is no such key; did you mean train\.learning_rate\?"),
        ("x", r"expected SECTION\.KEY, as in train\.learning_rate"),
        ("rollout.memory_share", "it may differ without that; leave the option out"),
    ],
)
def test_what_cannot_be_accepted_is_said(run_dir: Path, named: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        opened(run_dir, request=ResumeRequest(accepted=(named,)))


def test_the_checkpoint_tells_its_own_settings(run_dir: Path) -> None:
    """What a later attempt tried in vain does not count."""
    settings = json.loads(json.dumps(SETTINGS))
    settings["config"]["train"]["learning_rate"] = 1.0
    (run_dir / "command.json").write_text(json.dumps(settings))
    assert opened(run_dir)[0].step == 4


@pytest.mark.parametrize("text", ["", "[]", '{"config": 3}', "\x00", "[" * 100_000, '{"config": {"train": 7}}'])
def test_odd_files_are_read_without_a_traceback(run_dir: Path, text: str) -> None:
    for step in (2, 4):
        shutil.rmtree(run_dir / "checkpoints" / f"global_step_{step}")
        save(run_dir / "checkpoints", step)
    (run_dir / "command.json").write_text(text)
    (run_dir / "metrics.jsonl").write_bytes(b'\xff\xfe{"step": 1}\n{"step": "x"}\n[1]\n{"step": 4}\n{"step": 1e999}\n')
    with pytest.raises(ConfigError, match=r"tells with which run file it was made|cannot go on from step 4"):
        opened(run_dir)
    (run_dir / "attempts" / "7").mkdir(parents=True)
    (run_dir / "attempts" / "7" / "command.json").write_text(json.dumps(SETTINGS))
    if "train" not in text:
        assert gone_on(run_dir).step == 4
        assert (run_dir / "attempts" / "8").is_dir() and logged(run_dir) == [4]


def test_keys_that_have_come_and_gone(run_dir: Path) -> None:
    old = json.loads(json.dumps(SETTINGS))
    old["config"]["rollout"] |= {"spin": 3}
    old["config"]["gone"] = {"key": 1}
    del old["config"]["train"]["balance_batch"]
    del old["config"]["reward"]
    shutil.rmtree(run_dir / "checkpoints" / "global_step_4")
    save(run_dir / "checkpoints", 4, old)
    _, printed = opened(run_dir)
    assert "[rollout] spin was 3, and is no key of run files" in printed and "[gone] key was 1" in printed
    assert "balance_batch" not in printed and "reward" not in printed
    with pytest.raises(ConfigError, match="balance_batch is False now and True in the checkpoint"):
        opened(run_dir, with_("train", balance_batch=False))


def test_attempts_are_numbered_above_all_that_there_are(run_dir: Path) -> None:
    gone_on(run_dir)
    gone_on(run_dir)
    shutil.rmtree(run_dir / "attempts" / "1")
    (run_dir / "attempts" / "old").mkdir()
    gone_on(run_dir)
    assert sorted(path.name for path in (run_dir / "attempts").iterdir()) == ["2", "3", "old"]


def test_a_finished_run_says_so(run_dir: Path) -> None:
    with pytest.raises(AlreadyFinished, match=r"has finished 4 of 4 steps; to go on, raise \[run\] steps"):
        opened(run_dir, SIM.with_run(steps=4))
    assert opened(run_dir, SIM.with_run(steps=4), ResumeRequest(from_step=2))[0].step == 2


def test_the_options_of_both_commands_say_what_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (cli, node_cli):
        parser = argparse.ArgumentParser()
        command.register(parser.add_subparsers(dest="command"))
        name = "launch" if command is cli else "node"
        line = [name, "x.toml", "--from-step", "4", "--verify-checkpoint", "--accept", "run.seed", "--accept", "a.b"]
        assert options.read_resume_request(parser.parse_args(line)) == ResumeRequest(
            False, 4, True, ("run.seed", "a.b")
        )
        assert options.read_resume_request(parser.parse_args([name, "x.toml"])) == ResumeRequest()
        with pytest.raises(SystemExit):
            parser.parse_args([name, "x.toml", "--from-step", "4", "--fresh"])
        assert "not allowed with argument" in capsys.readouterr().err


class Killed(BaseException):
    """In place of kill -9."""


def _calls(monkeypatch: pytest.MonkeyPatch, until: int | None) -> list[str]:
    """Everything that changes the disk while an attempt is begun; the one of this number kills the launcher."""
    seen: list[str] = []

    def counted(name: str, original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            if until is not None and len(seen) == until:
                raise Killed
            seen.append(name)
            return original(*args, **kwargs)

        return call

    for owner, name in (
        (Path, "rename"), (Path, "mkdir"), (Path, "unlink"),
        (attempts, "write_atomically"), (attempts.shutil, "copyfile"), (attempts.os, "rename"), (resume, "add_mark"),
    ):  # fmt: skip
        monkeypatch.setattr(owner, name, counted(name, getattr(owner, name)))
    return seen


def test_killed_at_any_moment_of_its_beginning_the_next_launch_goes_on(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(run_dir, kept)
    config, accepted = with_("train", learning_rate=1e-6), ("train.learning_rate",)
    request = ResumeRequest(from_step=2, accepted=accepted)
    with monkeypatch.context() as patched:
        calls = _calls(patched, None)
        gone_on(run_dir, config, request)
    assert len(calls) > 10
    for moment in range(len(calls)):
        # With the same options, and with those that a watchdog script would have given.
        for attempt in (request, ResumeRequest(accepted=accepted)):
            shutil.rmtree(run_dir)
            shutil.copytree(kept, run_dir)
            with monkeypatch.context() as patched:
                _calls(patched, moment)
                with pytest.raises(Killed):
                    gone_on(run_dir, config, request)
            step = gone_on(run_dir, config, attempt).step
            untouched = attempt is not request and step == 4
            assert step == 2 or untouched, (moment, step)
            assert logged(run_dir) == list(range(step + 1)), moment
            assert [(mark.step, mark.name) for mark in read_marks(run_dir)] == [(step + 1, "train.learning_rate")]
            manifests = [*run_dir.rglob("global_step_*/checkpoint.json")]
            assert len(manifests) == 2, "no checkpoint is lost"
            assert sorted(path.name for path in (run_dir / "validation").iterdir()) == (
                ["0.jsonl", "3.jsonl"] if step == 4 else ["0.jsonl"]
            )


def test_killed_while_it_begins_anew(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    save(elsewhere, 4, SETTINGS)
    with monkeypatch.context() as patched:
        _calls(patched, 1)
        with pytest.raises(Killed):
            opened(run_dir, request=ResumeRequest(fresh=True), checkpoints=elsewhere)
    start, _ = opened(run_dir, request=ResumeRequest(fresh=True), checkpoints=elsewhere)
    assert start.checkpoint is None and (tmp_path / "elsewhere.1" / "global_step_4").is_dir()
    assert (tmp_path / "sim.2" / "metrics.jsonl").is_file()


def test_what_cannot_be_moved_is_one_line(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start, _ = opened(run_dir)

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device", "metrics.jsonl")

    monkeypatch.setattr(attempts, "write_atomically", full)
    with pytest.raises(LaunchError, match=r"cannot be put aside: metrics\.jsonl: No space left on device"):
        begin_attempt(start, run_dir / "checkpoints")


def test_two_launchers_do_not_work_on_one_run(tmp_path: Path) -> None:
    with (
        only_launcher("sim", tmp_path / "sim"),
        pytest.raises(LaunchError, match=r"another launcher \(pid \d+\) is at work on run sim"),
        only_launcher("sim", tmp_path / "sim"),
    ):
        pass
    with only_launcher("sim", tmp_path / "sim"):
        pass


@pytest.mark.parametrize("name", ["", ".hidden", "a b", "x" * 65, "a/b", "../b"])
def test_a_name_that_is_no_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="use letters, digits"), only_launcher(name, tmp_path / name):
        pass
