# SPDX-License-Identifier: Apache-2.0
"""Each rule on metrics of real runs: silent on the healthy one, and on copies with one thing made bad it speaks."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.report.metrics import Step, parse
from recipe.runfile.schema import ACTIONS, Watch
from recipe.watch import page
from recipe.watch.history import Context, context_of
from recipe.watch.rule import Rules
from recipe.watch.rules import RULES
from recipe.watch.watch import QUIET_STEPS, Watcher
from tests.recipe.watch.recorded import SIM, VOCABULARY, changed, findings, going_on, recorded, said

HEALTHY = recorded("healthy")
DEAD = recorded("dead")
LONG = going_on(HEALTHY, 60)
LAST = HEALTHY[-1]["step"]
NAN, INF = math.nan, math.inf
LATER = range(6, 61)
PEARSON, KL = "training__rollout_actor_probs_pearson_corr", "training__rollout_actor_kl"
SOLVED = {f"critic__score__{figure}": 1.0 for figure in ("mean", "min", "max")}
ALL_WRONG = {f"critic__score__{figure}": 0.0 for figure in ("mean", "min", "max")}
SCORE = next(name for name in HEALTHY[0]["data"] if name.startswith("val-core/")).replace("/", "__")
VALIDATED = [line["step"] for line in HEALTHY if SCORE.replace("__", "/") in line["data"]]


def test_the_recorded_runs_are_what_they_are_said_to_be() -> None:
    assert [line["step"] for line in HEALTHY] == list(range(11)) and len(VALIDATED) >= 3
    assert HEALTHY[-1]["data"]["critic/score/mean"] > 0.3
    dead = DEAD[-1]["data"]
    assert dead["critic/score/mean"] == 0 and dead["actor/grad_norm"] == 0
    assert dead["actor/entropy"] == pytest.approx(math.log(VOCABULARY), abs=0.01)


def test_a_healthy_run_has_no_finding() -> None:
    assert findings(HEALTHY) == []


def test_the_dead_policy_is_stopped_within_five_steps() -> None:
    breaches = findings(DEAD)
    stops = [breach for breach in breaches if breach.kind == "stop"]
    assert stops and stops[0].step <= 5 and {breach.rule for breach in stops} <= {"zero_gradient", "entropy_high"}
    # The first update ruined it: no checkpoint is good.
    assert {breach.good for breach in stops} == {0}


WARNS = [
    ("zero_gradient", 6, [6], {"actor__grad_norm": 0.0}),
    ("equal_rewards", 8, LATER, ALL_WRONG),
    ("equal_rewards", 8, LATER, {"critic__advantages__min": 0.0, "critic__advantages__max": 0.0}),
    ("solved", 15, LATER, SOLVED),
    ("entropy_high", 6, [6], {"actor__entropy": 6.0}),
    ("entropy_low", 10, LATER, {"actor__entropy": 0.001}),
    ("entropy_low", 10, LATER, {"actor__entropy": NAN}),
    ("cut_off", 10, LATER, {"response_length__clip_ratio": 0.7}),
    ("length_collapse", 10, LATER, {"response_length__mean": 1.0}),
    ("reward_drop", 8, LATER, {"critic__score__mean": 0.01}),
    ("validation_drop", VALIDATED[1], [VALIDATED[1]], {SCORE: 0.0}),
    ("validation_drop", VALIDATED[1], [VALIDATED[1]], {SCORE: NAN}),
    ("validation_drop", VALIDATED[1], [VALIDATED[1]], {SCORE: None}),
    ("rollout_pearson", 7, LATER, {PEARSON: 0.5}),
    ("rollout_pearson", 7, LATER, {PEARSON: NAN}),
    ("rollout_pearson", 7, LATER, {PEARSON: None}),
    ("rollout_pearson", 7, LATER, {PEARSON: "nan"}),
    ("rollout_pearson", 7, LATER, {PEARSON: ...}),
    ("rollout_kl", 7, LATER, {KL: 0.5}),
    ("rollout_kl", 7, LATER, {KL: -0.5}),
    ("rollout_kl", 7, LATER, {KL: ..., "rollout_corr__kl": ...}),
    ("routing_replay", 6, [6], {"training__routing_replayed": 0.999999}),
]


@pytest.mark.parametrize(("rule", "step", "steps", "values"), WARNS)
def test_a_rule_warns_after_its_number_of_bad_steps(rule: str, step: int, steps: Any, values: dict[str, Any]) -> None:
    breaches = [breach for breach in findings(changed(LONG, steps, **values)) if breach.rule == rule]
    assert (breaches[0].kind, breaches[0].step) == ("warning", step), breaches
    assert len(breaches[0].text) < 200 and "\n" not in breaches[0].text


STOPS = [
    *(("not_finite", 6, [6], {name: value})
      for name in ("actor__pg_loss", "actor__grad_norm", "actor__kl_loss", KL, "critic__score__mean")
      for value in (NAN, INF, -INF, None, "nan")),
    ("zero_gradient", 7, LATER, {"actor__grad_norm": 0.0}),
    ("equal_rewards", 25, LATER, {f"critic__score__{figure}": 0.6 for figure in ("mean", "min", "max")}),
    ("entropy_high", 7, LATER, {"actor__entropy": math.log(VOCABULARY)}),
    ("reward_drop", 17, LATER, {"critic__score__mean": 0.01}),
    ("validation_drop", VALIDATED[2], VALIDATED[1:], {SCORE: 0.0}),
    ("rollout_kl", 15, LATER, {KL: 0.5}),
    ("routing_replay", 7, LATER, {"training__routing_replayed": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "step", "steps", "values"), STOPS)
def test_a_rule_stops_after_its_number_of_bad_steps(rule: str, step: int, steps: Any, values: dict[str, Any]) -> None:
    breaches = findings(changed(LONG, steps, **values))
    assert (rule, "stop", step) in said(breaches)


@pytest.mark.parametrize("rule", [rule.name for rule in RULES])
def test_every_rule_is_tried_and_says_nothing_when_it_is_off(rule: str) -> None:
    tried = [case for case in (*WARNS, *STOPS) if case[0] == rule]
    assert tried
    for _, _, steps, values in tried:
        settings = dataclasses.replace(Watch(), **{rule: "off"})
        assert rule not in {breach.rule for breach in findings(changed(LONG, steps, **values), settings=settings)}


@pytest.mark.parametrize("rule", sorted({case[0] for case in STOPS}))
def test_a_rule_that_only_warns_lets_the_run_go_on(rule: str) -> None:
    _, _, steps, values = next(case for case in STOPS if case[0] == rule)
    settings = dataclasses.replace(Watch(), **{rule.name: "warn" for rule in RULES})
    breaches = findings(changed(LONG, steps, **values), settings=settings)
    assert rule in {breach.rule for breach in breaches} and {breach.kind for breach in breaches} == {"warning"}


def test_the_watch_can_be_off_as_a_whole() -> None:
    assert findings(DEAD, settings=dataclasses.replace(Watch(), enabled=False)) == []


def test_solved_problems_end_no_run() -> None:
    # Without an advantage and with the reference's pull gone the gradient may be 0; the policy is right all the same.
    breaches = findings(changed(LONG, LATER, **SOLVED, actor__grad_norm=0.0, actor__kl_loss=0.0))
    assert said(breaches) == [("solved", "warning", 15)]


def test_a_hard_start_without_any_reward_is_given_time() -> None:
    wrong = changed(LONG, range(1, 20), **ALL_WRONG, actor__grad_norm=0.0, actor__kl_loss=0.0)
    assert said(findings(wrong)) == [("equal_rewards", "warning", 3)]


def test_a_dip_of_the_agreement_is_no_finding() -> None:
    for step, pearson in ((6, 0.933), (8, 0.94), (9, 0.984)):
        assert findings(changed(HEALTHY, [step], **{PEARSON: pearson, KL: 0.0058})) == []


def test_a_low_correlation_of_probabilities_that_are_all_alike_says_nothing() -> None:
    alike = {PEARSON: 0.1, "training__rollout_probs_diff_max": 1e-4}
    assert findings(changed(LONG, LATER, **alike)) == []


def test_a_run_that_measures_speed_need_not_learn() -> None:
    context = dataclasses.replace(SIM, learns=False)
    idle = {**ALL_WRONG, "actor__grad_norm": 0.0, "actor__entropy": 6.46, "response_length__clip_ratio": 1.0}
    assert findings(changed(LONG, LATER, **idle), context) == []
    assert said(findings(changed(LONG, [7], actor__pg_loss=NAN), context)) == [("not_finite", "stop", 7)]


def test_the_entropy_has_no_upper_bound_where_the_vocabulary_is_not_known() -> None:
    assert findings(changed(LONG, LATER, actor__entropy=6.46), Context(kl_coefficient=0.001)) == []


def test_a_step_without_a_finding_begins_the_count_anew_and_one_without_the_metric_leaves_it() -> None:
    def stops(lines: Any) -> list[int]:
        return [breach.step for breach in findings(lines) if breach.kind == "stop"]

    assert stops(changed(LONG, [6, 8], actor__grad_norm=0.0)) == []
    assert stops(changed(changed(LONG, [6, 8], actor__grad_norm=0.0), [7], actor__grad_norm=...)) == [8]


def test_a_rule_that_comes_and_goes_warns_once_in_a_while() -> None:
    flapping = changed(LONG, range(6, 61, 2), actor__grad_norm=0.0)
    steps = [breach.step for breach in findings(flapping) if breach.rule == "zero_gradient"]
    assert steps == [6, *range(6 + QUIET_STEPS + 2, 61, QUIET_STEPS + 2)]


GOOD = [
    # Steps 6 and on are bad; what they measure is the policy of checkpoint 5; step 5 spoke for checkpoint 4.
    ("zero_gradient", LATER, {"actor__grad_norm": 0.0}, 4),
    ("not_finite", [8], {"actor__grad_norm": NAN}, 6),
    # A fall from the best: where the best mean was, not where the fall was great enough.
    ("reward_drop", LATER, {"critic__score__mean": 0.01}, 4),
    ("validation_drop", VALIDATED[1:], {SCORE: 0.0}, 0),
]


@pytest.mark.parametrize(("rule", "steps", "values", "good"), GOOD)
def test_the_last_good_checkpoint_is_one_that_a_good_step_speaks_for(
    rule: str, steps: Any, values: dict[str, Any], good: int
) -> None:
    breaches = findings(changed(LONG, steps, **values))
    (stop,) = [breach for breach in breaches if breach.kind == "stop" and breach.rule == rule]
    assert stop.good == good


def test_another_broken_rule_can_speak_against_a_checkpoint() -> None:
    both = changed(changed(LONG, range(4, 61), actor__entropy=6.46), range(5, 61), actor__grad_norm=0.0)
    assert {breach.good for breach in findings(both) if breach.step > 4} == {2}


def test_a_run_that_is_started_again_after_a_stop_is_stopped_by_the_next_bad_step() -> None:
    watch = Watcher(Watch(), SIM)
    for number in range(1, 12):
        breaches = watch.feed(_parsed(number, HEALTHY[-1]["data"] | {"actor/grad_norm": 0.5 if number < 6 else 0.0}))
    assert said(breaches) == [("zero_gradient", "stop", 11)] and watch.good == 4


def test_good_follows_the_run() -> None:
    watch = Watcher(Watch(), SIM)
    assert watch.good == 0
    goods = []
    for number in range(1, 9):
        watch.feed(_parsed(number, HEALTHY[-1]["data"] | {"actor/grad_norm": 0.0 if number in (4, 5) else 0.5}))
        goods.append(watch.good)
    assert goods == [0, 1, 2, 2, 2, 5, 6, 7]


def test_every_rule_has_its_keys_in_the_run_file() -> None:
    fields = {field.name: field for field in dataclasses.fields(Watch)}
    named = ["enabled", *(name for rule in RULES for name in (rule.name, *rule.bounds))]
    assert sorted(fields) == sorted(named)
    for rule in RULES:
        choices = fields[rule.name].metadata["choices"]
        assert set(choices) == set(ACTIONS) - (set() if rule.stop_after else {"stop"})
        assert rule.why and rule.counts


@pytest.mark.parametrize("numbers", [(0, 0), (3, 2)])
def test_a_rule_that_cannot_be_is_refused(numbers: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="warn before they stop"):
        Rules().rule("odd", "", why="", counts="", warn_after=numbers[0], stop_after=numbers[1])


def test_a_name_is_given_once() -> None:
    rules = Rules()
    declare = rules.rule("one", "", why="", counts="", warn_after=1, stop_after=2)
    declare(lambda now: None)
    with pytest.raises(ValueError, match="a new name"):
        rules.rule("one", "", why="", counts="", warn_after=1, stop_after=2)


def test_the_context_is_read_from_the_configuration() -> None:
    config: dict[str, Any] = {
        "train": {"kl_coefficient": 0.5},
        "model": {"kind": "tiny"},
        "rollout": {"ignore_eos": False},
    }
    assert context_of(config, 9) == Context(9, kl_coefficient=0.5, learns=True)
    assert not context_of(config | {"model": {"kind": "random_init"}}, 9).learns
    assert not context_of(config | {"rollout": {"ignore_eos": True}}, 9).learns


def test_the_page_is_current() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(), "run: python -m recipe.watch.page"


NAMES = sorted({name for line in (*HEALTHY, *DEAD) for name in line["data"]})
VALUES = st.one_of(
    st.floats(), st.sampled_from([NAN, INF, -INF, 0.0, -0.0, 1e308, -1e308, 5e-324]), st.none(), st.text(max_size=3),
    st.integers(), st.booleans(), st.just(10**400), st.lists(st.floats(), max_size=2),
)  # fmt: skip
ODD = st.fixed_dictionaries({}, optional={name: VALUES for name in NAMES})


@hypothesis.settings(deadline=None)  # the machine may be busy
@given(st.lists(st.tuples(st.integers(-3, 10**9), ODD), max_size=8), st.booleans())
def test_no_metrics_whatever_make_a_rule_fail(lines: list[Any], learns: bool) -> None:
    watch = Watcher(Watch(), Context(VOCABULARY, 0.001, learns))
    for number, data in lines:
        for line in (data, HEALTHY[-1]["data"] | data):
            step = _parsed(number, line)
            for finding in watch.feed(step):
                assert finding.rule in watch.rules and "\n" not in finding.text and finding.good >= 0


def _parsed(number: int, data: dict[str, Any]) -> Step:
    step = parse({"step": number, "data": data})
    assert step is not None
    return step


@hypothesis.settings(deadline=None, max_examples=30)
@given(st.sampled_from(HEALTHY[1:]), st.integers(1, 80))
def test_a_healthy_figure_that_stays_as_it_is_is_never_a_finding(line: dict[str, Any], steps: int) -> None:
    watch = Watcher(Watch(), SIM)
    for number in range(1, steps + 1):
        assert watch.feed(_parsed(number, line["data"])) == []
