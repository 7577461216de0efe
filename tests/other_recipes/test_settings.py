# SPDX-License-Identifier: Apache-2.0
"""Every setting that a published script gives to verl, behind our command of the same run.

Each is taken, or refused in one line that names the key of the run file it follows from, or says that it is the
recipe's or unsafe. `settings.toml` has them as they were published.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from recipe.__main__ import main
from recipe.runfile.config import load
from recipe.runfile.derive import derive_run
from recipe.runfile.errors import ConfigError
from recipe.runfile.passed.given import parsed
from recipe.runfile.passed.require import require_own, require_taken
from recipe.runfile.paths import upstream_dir
from tests.docs import pages

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

REPO = Path(__file__).resolve().parents[2]
PAGE = "docs/FROM_OTHER_RECIPES.md"
RUNS: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("settings.toml").read_text("utf-8"))["run"]
TRANSFORMER = "actor_rollout_ref.actor.megatron.override_transformer_config."
# Read by MindSpeed alone: taken where it is among the upstream sources.
MINDSPEEDS = {
    TRANSFORMER + name
    for name in (
        *("use_fused_rotary_pos_emb", "use_fused_swiglu", "seq_length"),
        *("rope_scaling_type", "yarn_scaling_factor", "rope_scaling_mscale", "rope_scaling_mscale_all_dim"),
    )
}
# Of a fork of verl's that is not pinned here, with nothing in its place.
GONE = {"actor_rollout_ref.actor.megatron.fix_router"}
TAKEN, OURS, FIXED, UNSAFE, UNKNOWN, MARK = "taken", "ours", "fixed", "unsafe", "unknown", "mark"
WORDS = {
    OURS: r"(follows from|is worked out from) ([\w., ]+) of the run file; set (that|those) instead",
    FIXED: r"is set by the recipe, and no key of the run file changes it; leave it out",
    UNSAFE: r"would run code out of the model's directory; leave it out",
    UNKNOWN: r"verl's configuration has no \S+; did you mean \S+\?",
    MARK: r"is in verl's configuration already; leave the \+ out",
}


def key_of(setting: str) -> str:
    return setting.partition("=")[0].lstrip("+")


def outcome(setting: str) -> str:
    """What becomes of a setting: one of the names above."""
    try:
        values = parsed([setting])
        require_own(values)
        require_taken(values, upstream_dir())
    except ConfigError as error:
        said = str(error)
        assert "\n" not in said and key_of(setting) in said
        return next((name for name, words in WORDS.items() if re.search(words, said)), said)
    return TAKEN


def told(run: dict[str, Any]) -> dict[str, str]:
    """What verl is told by our run file, by key."""
    overrides = derive_run(load(REPO / run["ours"])).complete().overrides
    pairs = (item.partition("=") for item in overrides)
    return {key.lstrip("+"): value for key, _, value in pairs}


def named(run: dict[str, Any]) -> str:
    return Path(run["file"]).stem


def test_the_table_is_that_of_four_scripts() -> None:
    assert [len(run["settings"]) for run in RUNS] == [78, 61, 52, 58]
    assert all(re.fullmatch(r"[0-9a-f]{40}", run["commit"]) and (REPO / run["ours"]).is_file() for run in RUNS)


@pytest.mark.parametrize("run", RUNS, ids=named)
def test_each_is_taken_or_refused_with_what_to_do(run: dict[str, Any]) -> None:
    outcomes = {setting: outcome(setting) for setting in run["settings"]}
    assert set(outcomes.values()) <= {TAKEN, *WORDS}, outcomes
    unknown = {key_of(setting) for setting, found in outcomes.items() if found == UNKNOWN}
    assert unknown <= MINDSPEEDS | GONE
    counted = Counter(outcomes.values())
    assert counted[OURS] > counted[FIXED] > counted[UNSAFE] and counted[TAKEN] >= 3


@pytest.mark.parametrize("run", RUNS, ids=named)
def test_what_no_key_changes_is_as_published_or_the_page_says_so(run: dict[str, Any]) -> None:
    ours, said = told(run), pages.text(PAGE)
    for setting in run["settings"]:
        key, _, value = setting.partition("=")
        mine = ours.get(key_of(key), "")
        if outcome(setting) == FIXED and mine.lower() != value.strip("'").lower():
            assert f"`{key_of(key).rpartition('.')[2]}`" in said, (setting, mine)


@pytest.mark.parametrize("run", RUNS, ids=named)
def test_those_that_are_taken_stand_behind_the_command(run: dict[str, Any]) -> None:
    taken = [setting for setting in run["settings"] if outcome(setting) == TAKEN]
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert main(["show", str(REPO / run["ours"]), *taken]) == 0
    given = shown.getvalue().partition("# settings of verl, as given")[2].split()
    assert {key_of(item) for item in given} == {key_of(setting) for setting in taken}


def test_what_is_refused_is_refused_behind_a_published_entry(capsys: pytest.CaptureFixture[str]) -> None:
    setting = "actor_rollout_ref.actor.megatron.swap_optimizer=True"
    assert main(["node", str(REPO / "configs/a3_256die_true_weight.toml"), "--no-preflight", setting]) == 2
    assert "follows from actor.optimizer of the run file; set that instead" in "".join(capsys.readouterr())


@pytest.mark.parametrize("page", [PAGE, "docs/zh/FROM_OTHER_RECIPES.md"])
def test_the_page_counts_them_right(page: str) -> None:
    rows = [
        [cell.strip() for cell in line.split("|")[2:6]] for line in pages.text(page).splitlines() if line[:2] == "| "
    ]
    for run in RUNS:
        counted = Counter(map(outcome, run["settings"]))
        assert [
            str(count) for count in (len(run["settings"]), *(counted[name] for name in (OURS, FIXED, TAKEN)))
        ] in rows
