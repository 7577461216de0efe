# SPDX-License-Identifier: Apache-2.0
"""`python -m recipe plan` as a user types it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recipe.__main__ import main
from recipe.plan.page import as_json, as_text
from recipe.plan.plan import make_plan
from recipe.plan.subject import subject
from recipe.runfile.config import load
from recipe.runfile.layout import lay_out
from recipe.sizes import size_text

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
ALL = sorted(path.stem for path in CONFIGS.glob("*.toml"))


@pytest.mark.parametrize("name", ALL)
def test_every_run_file_is_planned(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(CONFIGS / f"{name}.toml"), "--json", "--no-search"]) == 0
    plan = json.loads(capsys.readouterr().out)
    stages = len(lay_out(load(CONFIGS / f"{name}.toml")).stage_layers)
    assert [die["stage"] for die in plan["memory"]] == list(range(stages))
    assert plan["fits"]
    assert (plan["seconds"] is None) is name.startswith("sim")
    # verl's own sync: on GPUs, and of models whose tensors the direct one does not know.
    model = subject(load(CONFIGS / f"{name}.toml")).model
    gathered = model.experts > 0 and (name.startswith("h20") or not model.has_routes)
    assert ("reshard, expert all-gather" in plan["traffic_bytes"]) is gathered


def test_the_page_names_phases_verdict_and_smallest_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(CONFIGS / "a3_256die.toml")]) == 0
    page = capsys.readouterr().out
    for text in ("rollout  reference", "KV cache", "page-locked", "Estimated time of a step", "\nFITS\n"):
        assert text in page
    assert "The smallest cluster this fits on: 16 x 16 dies" in page


@pytest.mark.parametrize("name", ALL)
def test_the_page_fits_in_100_columns_and_json_carries_its_figures(name: str) -> None:
    made = make_plan(subject(load(CONFIGS / f"{name}.toml")))
    page, plan = as_text(made), as_json(made)
    assert max(len(line) for line in page.splitlines()) <= 100
    rows = {line.split("  ")[1]: line for line in page.splitlines() if line.startswith("  ")}
    for sums in (plan["fullest"].values(), [{"bytes": plan["host"]["total_bytes"]}]):
        assert any(all(size_text(each["bytes"]) in row for each in sums) for row in page.splitlines() if "  all" in row)
    for cause, size in plan["traffic_bytes"].items():
        assert rows[cause].endswith(size_text(size))
    smallest = plan["smallest_cluster"]
    assert f"this fits on: {smallest['nodes']} x {smallest['dies_per_node']} dies" in page
    assert f"a node {size_text(smallest['host']['total_bytes'])}" in " ".join(page.split())
    if plan["seconds"] is not None:
        low, high = plan["seconds_range"]["step"]
        assert rows["step"].endswith(f"{plan['seconds']['step']:.0f} s  {low:.0f} to {high:.0f} s")
        fewest, most = plan["tokens_per_second_range"]
        rate = plan["tokens_per_second_per_device"]
        assert f"\n{rate:.0f} tokens a second ({fewest:.0f} to {most:.0f}) for each" in page


def test_what_does_not_fit_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = (CONFIGS / "h20_128gpu_math_lighteval.toml").read_text(encoding="utf-8")
    smaller = tmp_path / "h20_of_96_gb.toml"
    smaller.write_text(text.replace('hardware = "h20_141"', 'hardware = "h20_96"'), encoding="utf-8")
    assert main(["plan", str(smaller), "--no-search"]) == 0
    page = capsys.readouterr().out
    assert "DOES NOT FIT" in page
    assert "update: up to" in page
    assert main(["plan", str(smaller), "--no-search", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    left = {phase: full["left_bytes"] for phase, full in plan["fullest"].items()}
    assert left == {phase: plan["die_bytes"] - full["bytes"] for phase, full in plan["fullest"].items()}
    assert left["update"] < 0 < left["ref"]
    (row,) = (line.split() for line in page.splitlines() if "left of a die" in line)
    assert row[-4] == f"{left['update'] / 2**30:.1f}" and row[-3] == "GiB"
    assert page.startswith("h20_128gpu_math_lighteval: 16 x 8 dies of 95.1 GiB (NVIDIA H20, 96 GB)\n")


def test_what_is_left_of_a_node_is_shown_and_whose_figure_its_memory_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = (CONFIGS / "a3_256die.toml").read_text(encoding="utf-8")
    given = tmp_path / "given.toml"
    given.write_text(text.replace("# host_memory_gib_per_node = 1862", "host_memory_gib_per_node = 1800"))
    assert main(["plan", str(given), "--no-search"]) == 0
    page = capsys.readouterr().out
    assert re.search(r"^  left of a node's 1800 GiB +69\.0 GiB$", page, re.MULTILINE)
    assert "is not given" not in page
    assert main(["plan", str(CONFIGS / "a3_256die.toml"), "--no-search"]) == 0
    page = capsys.readouterr().out
    assert re.search(r"^  left of a node's 1862 GiB +131\.0 GiB$", page, re.MULTILINE)
    assert "host_memory_gib_per_node is not given: 1862 GiB as such nodes have (verl" in page
    assert main(["plan", str(CONFIGS / "sim.toml"), "--no-search"]) == 0
    assert "left of a node" not in capsys.readouterr().out


def test_an_optimizer_on_the_host_makes_room_and_its_time_is_not_estimated(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines = (CONFIGS / "h20_128gpu_math_lighteval.toml").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if not line.startswith(("hardware", "optimizer"))]
    for section, line in (("[cluster]", 'hardware = "h20_96"'), ("[actor]", 'optimizer = "host"')):
        kept.insert(next(number for number, text in enumerate(kept) if text.startswith(section)) + 1, line)
    hosted = tmp_path / "hosted.toml"
    hosted.write_text("\n".join(kept), encoding="utf-8")
    assert main(["plan", str(hosted), "--no-search"]) == 0
    page = capsys.readouterr().out
    assert "\nFITS\n" in page
    assert "gradients, page-locked" in page
    assert "the host's cores update the weights: how long that takes is not in the estimated time" in page


def test_shorter_answers_take_less_time_and_no_less_memory(capsys: pytest.CaptureFixture[str]) -> None:
    plans = []
    for extra in ([], ["--prompt-tokens", "175.1", "--response-tokens", "1385"]):
        assert main(["plan", str(CONFIGS / "a3_256die.toml"), "--json", "--no-search", *extra]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    assert plans[1]["seconds"]["update"] < plans[0]["seconds"]["update"]
    assert plans[1]["traffic_bytes"]["pipeline"] < plans[0]["traffic_bytes"]["pipeline"]
    assert plans[1]["memory"] == plans[0]["memory"]


def test_experts_that_are_sent_more_than_their_share_leave_less_room(capsys: pytest.CaptureFixture[str]) -> None:
    plans = []
    for extra in ([], ["--expert-load", "4"]):
        assert main(["plan", str(CONFIGS / "a3_256die.toml"), "--json", "--no-search", *extra]) == 0
        plans.append(json.loads(capsys.readouterr().out))
    even, uneven = (plan["memory"][1]["phases"] for plan in plans)
    # The engine sizes its cache in a trial step that sends all experts alike.
    assert plans[1]["kv_cache"]["tokens"] == plans[0]["kv_cache"]["tokens"]
    for phase in ("rollout", "ref", "update"):
        assert sum(uneven[phase].values()) > sum(even[phase].values())
    assert uneven["update"]["gradients"] == even["update"]["gradients"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.toml"], "none.toml: cannot be read"),
        ([], "expected RUN.toml, or --fit MODEL or --published without one"),
        (
            [str(CONFIGS / "a3_256die.toml"), "--published"],
            "expected RUN.toml, or --fit MODEL or --published without one",
        ),
        ([str(CONFIGS / "a3_256die.toml"), "--response-tokens", "0"], "--response-tokens is 0; expected more than 0"),
        ([str(CONFIGS / "a3_256die.toml"), "--expert-load", "0.5"], "--expert-load is 0.5; expected 1 or more"),
        ([str(CONFIGS / "a3_256die.toml"), "--expert-load", "nan"], "--expert-load is nan; expected 1 or more"),
        ([str(CONFIGS / "a3_256die.toml"), "--response-tokens", "4096"], "more than the run file's limit of 2048"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ") and error.count("\n") == 1


def test_no_torch_is_needed() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from recipe.__main__ import main\n"
        f"sys.exit(main(['plan', {str(CONFIGS / 'sim.toml')!r}, '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["fits"]
