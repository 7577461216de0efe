# SPDX-License-Identifier: Apache-2.0
"""The report of a small made-up run directory: every figure against a value worked out by hand."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from recipe.report.make import make_report
from recipe.report.marks import STOP, WARNING, Mark, add_mark
from recipe.report.summary import summarise

REPO = Path(__file__).resolve().parents[3]
HOSTILE = "<script>alert('1')</script> \"quoted\" & <img src=x onerror=alert(2)>"
STEERING = "\u202e\x1b[2J\x9b1m\u200b\ud800\x00"


def lines(path: Path, values: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(value) + "\n" for value in values), encoding="utf-8")


def metrics_of(step: int, reward: float, pearson: float, kl: float, **more: float) -> dict[str, Any]:
    data = {
        "critic/score/mean": reward,
        "response_length/mean": 10.0 + step,
        "timing_s/step": 3.0 + step,
        "response_length/clip_ratio": 0.1,
        "actor/entropy": 0.3,
        "actor/kl_loss": 0.001,
        "actor/grad_norm": 1.5,
        "timing_s/gen": 1.0,
        "timing_s/update_actor": 1.5,
        "training/rollout_actor_probs_pearson_corr": pearson,
        "training/rollout_actor_kl": kl,
        **more,
    }
    return {"step": step, "data": data}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run of three steps, whose model writes HTML."""
    run = tmp_path / "made-up"
    score = "val-core/sums/acc/mean@8"
    first = {"step": 0, "data": {score: 0.25, "val-aux/sums/score/mean@8": 0.9}}
    steps = [metrics_of(1, 0.4, 0.999, 1e-4), metrics_of(2, 0.5, 0.995, -3e-3), metrics_of(3, 0.6, 0.998, 2e-3)]
    steps[2]["data"][score] = 0.75
    lines(run / "metrics.jsonl", [first, *steps])

    def memory(rank: int, phase: str, allocated: int, peak: int, **more: int) -> dict[str, Any]:
        return {"time": 2.0, "pid": 10 + rank, "rank": rank, "kind": "memory", "phase": phase} | {
            "allocated": allocated,
            "peak": peak,
            **more,
        }

    lines(
        run / "events" / "10.jsonl",
        [memory(0, "generated", 9000, 9500), memory(0, "released", 800, 9500, rollout_bytes=30)],
    )
    lines(
        run / "events" / "11.jsonl", [memory(1, "released", 700, 9900, rollout_bytes=50), memory(1, "update", 5, 9900)]
    )
    lines(
        run / "events" / "launcher.jsonl",
        [
            {"time": 1.0 + i, "pid": 1, "rank": None, "kind": "processes", "count": 2, "rss": rss}
            for i, rss in enumerate((5, 9, 7))
        ],
    )

    def patched(pid: int, role: str, patch: str, status: str) -> dict[str, Any]:
        return {"time": 1.0, "host": "h", "pid": pid, "role": role, "patch": patch, "status": status, "reason": HOSTILE}

    lines(
        run / "manifest.jsonl",
        [
            patched(1, "driver", "verl_patches.protocol:concat", "applied"),
            patched(10, "WorkerDict rank=0", "verl_patches.protocol:concat", "applied"),
            patched(10, "WorkerDict rank=0", "megatron_patches.core.jit:jit_fuser", "applied"),
            patched(10, "WorkerDict rank=0", "megatron_patches.core.utils:te", "skipped"),
        ],
    )
    for step, output in ((0, HOSTILE + STEERING), (3, "<think>1+1=2</think><answer>\\boxed{2}</answer>")):
        answers = [
            {"input": f"Think first.What is sum {i}?", "output": output, "gts": "2", "score": step / 3, "step": step}
            for i in range(9)
        ]
        lines(run / "validation" / f"{step}.jsonl", answers)
    result = {"status": "finished", "error": None, "wall_s": 61.5, "seed": 4, "steps_wanted": 3}
    (run / "result.json").write_text(json.dumps(result), encoding="utf-8")
    command = {"config": {"cluster": {"device": "sim"}}}
    (run / "command.json").write_text(json.dumps(command), encoding="utf-8")
    (run / "run.toml").write_text("[run]\nname = 'made-up' # " + HOSTILE + "\n", encoding="utf-8")
    return run


def reported(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "recipe", "report", *arguments]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60, check=False)


def test_every_figure_of_the_summary(run_dir: Path) -> None:
    summary = summarise(run_dir)
    upstreams, runtime, processes = summary.pop("upstreams"), summary.pop("runtime"), summary.pop("processes")
    assert summary == {
        "status": "finished",
        "error": None,
        "seed": 4,
        "device": "sim",
        "steps": 3,
        "wall_s": 61.5,
        "step_s_median": 5.0,
        "val_score_first": 0.25,
        "val_score_last": 0.75,
        "reward_first": 0.4,
        "reward_last": 0.6,
        "released_bytes_max": 50,
        "rollout_actor_pearson_min": 0.995,
        "rollout_actor_kl_abs_max": 3e-3,
        "routing_replayed_min": None,
        "routing_flips_max": None,
        "peak_hbm_bytes": 9900,
        "rss_peak_bytes": 9,
        "patches_live": ["megatron_patches.core.jit:jit_fuser", "verl_patches.protocol:concat"],
        "patches_skipped": {"megatron_patches.core.utils:te": HOSTILE},
        "marks": [],
    }
    assert upstreams["verl"] == "0.6.1" and upstreams["vllm"] == "0.9.1"
    assert runtime["torch"].startswith("2.")
    assert processes == [
        {"host": "h", "pid": 1, "role": "driver", "patches": 1},
        {"host": "h", "pid": 10, "role": "WorkerDict rank=0", "patches": 2},
    ]


class Page(HTMLParser):
    """Collects the elements and what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_self_contained_and_escapes_what_models_write(run_dir: Path) -> None:
    make_report(run_dir)
    html = (run_dir / "report.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(html)
    assert "script" not in page.elements
    assert page.elements.count("img") == len(list(run_dir.glob("*.png"))) == 11
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert HOSTILE in page.text
    assert not [letter for letter in STEERING if letter in html and not letter.isprintable()]
    assert "say nothing about speed" in " ".join(page.text.split())
    assert "0.250 → 0.750" in page.text
    assert "0:01:02 hours" in page.text
    assert f"name = 'made-up' # {HOSTILE}" in page.text
    for problem in ("What is sum 0?", "What is sum 3?", "What is sum 6?"):
        assert problem in page.text
    assert "Think first" not in page.text


def test_marks_are_on_the_curves_on_the_page_and_in_the_summary(run_dir: Path) -> None:
    make_report(run_dir)
    curves = [run_dir / f"{name}.png" for name in ("reward", "validation_score", "gradient_norm")]
    unmarked = [run_dir / f"{name}.png" for name in ("device_memory", "host_memory")]
    before = {path: path.read_bytes() for path in (*curves, *unmarked)}
    add_mark(run_dir, Mark(2, WARNING, "cut_off", HOSTILE))
    for name in ("$x$", "a_rule_whose_long_name_does_not_fit_the_height_of_the_picture"):
        add_mark(run_dir, Mark(3, STOP, name, "text"))
    make_report(run_dir)
    assert all(path.read_bytes() != before[path] for path in curves)
    assert all(path.read_bytes() == before[path] for path in unmarked)
    page = Page()
    page.feed((run_dir / "report.html").read_text(encoding="utf-8"))
    assert HOSTILE in page.text and "script" not in page.elements
    marks = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))["marks"]
    assert marks[0] == {"step": 2, "kind": "warning", "name": "cut_off", "text": HOSTILE} and len(marks) == 3


def test_many_marks_are_drawn_without_their_names(run_dir: Path) -> None:
    for step in range(40):
        add_mark(run_dir, Mark(step, WARNING, f"rule_{step}", "text"))
    make_report(run_dir)
    assert (run_dir / "reward.png").is_file()


@pytest.mark.parametrize("value", [float("nan"), None, "nan"])
def test_an_agreement_that_is_no_number_is_the_worst_of_all(run_dir: Path, value: Any) -> None:
    with open(run_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
        for name in ("training/rollout_actor_probs_pearson_corr", "training/rollout_actor_kl"):
            file.write(json.dumps({"step": 3, "data": {name: value}}) + "\n")
    summary = summarise(run_dir)
    assert math.isnan(summary["rollout_actor_pearson_min"]) and math.isnan(summary["rollout_actor_kl_abs_max"])


def test_replayed_choices_of_experts_are_on_the_page(run_dir: Path) -> None:
    make_report(run_dir)
    assert "followed by the actor" not in (run_dir / "report.html").read_text(encoding="utf-8")
    with open(run_dir / "metrics.jsonl", "a", encoding="utf-8") as file:
        for step, replayed in ((2, 0.999999), (3, 1.0)):
            data = {"training/routing_replayed": replayed, "training/routing_flips": step / 1000}
            file.write(json.dumps({"step": step, "data": data}) + "\n")
    make_report(run_dir)
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    assert (summary["routing_replayed_min"], summary["routing_flips_max"]) == (0.999999, 0.003)
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "99.9999 %" in page and "0.30 %" in page


def test_the_report_can_be_made_again(run_dir: Path) -> None:
    make_report(run_dir)
    made = {path.name: path.read_bytes() for path in run_dir.iterdir() if path.is_file()}
    for name in ("summary.json", "report.html", "reward.png"):
        (run_dir / name).unlink()
    done = reported(str(run_dir))
    assert done.returncode == 0, done.stderr
    assert (run_dir / "summary.json").read_bytes() == made["summary.json"]
    assert (run_dir / "report.html").read_bytes() == made["report.html"]


def test_a_picture_is_drawn_where_it_is_asked_for(run_dir: Path, tmp_path: Path) -> None:
    done = reported(str(run_dir), "--picture", str(tmp_path / "run.svg"))
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.splitlines()[-1] == str(tmp_path / "run.svg")
    svg = (tmp_path / "run.svg").read_text(encoding="utf-8")
    for said in ("0.250 → 0.750", "0.400 → 0.600", "11.0 → 13.0", "made-up: 3 steps of GRPO, seed 4, simulated NPUs"):
        assert f">{said}</text>" in svg


def test_a_picture_that_cannot_be_drawn_or_written_is_an_error(run_dir: Path, tmp_path: Path) -> None:
    done = reported(str(run_dir), "--picture", str(tmp_path / "nowhere" / "run.svg"))
    assert done.returncode == 2 and done.stderr.endswith("run.svg cannot be written: No such file or directory\n")
    (run_dir / "metrics.jsonl").write_text("", encoding="utf-8")
    done = reported(str(run_dir), "--picture", str(tmp_path / "run.svg"))
    assert done.returncode == 2 and "has no steps to draw" in done.stderr and not (tmp_path / "run.svg").exists()


@pytest.mark.parametrize("device", ["npu", "cuda"])
def test_a_run_on_real_devices_is_not_called_simulated(run_dir: Path, device: str) -> None:
    command = {"config": {"cluster": {"device": device}}}
    (run_dir / "command.json").write_text(json.dumps(command), encoding="utf-8")
    assert make_report(run_dir)["device"] == device
    assert "imulated" not in (run_dir / "report.html").read_text(encoding="utf-8")


def test_a_run_that_failed_early_still_has_a_report(tmp_path: Path) -> None:
    result = {"status": "failed", "error": "no <memory>", "wall_s": 3.0, "seed": 1}
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    summary = make_report(tmp_path)
    assert (summary["status"], summary["steps"], summary["val_score_last"]) == ("failed", 0, None)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "This run did not finish: no &lt;memory&gt;" in html
    assert "not recorded" in html


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = reported(str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "metrics.jsonl" in done.stderr
