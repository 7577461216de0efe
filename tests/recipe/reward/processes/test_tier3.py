# SPDX-License-Identifier: Apache-2.0
"""Tier 3 is asked only where it may be, has the last word there, and costs a batch nothing but its own answers.

The process and its limits are the real ones; only the grader in it is a stand-in, so that it hangs or dies on demand.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.reward.grade import grade_answer
from recipe.reward.processes import batch, tier3
from recipe.reward.processes.batch import Pool
from recipe.reward.processes.errors import CanaryError, GraderError
from recipe.reward.processes.line_process import LONGEST_LINE, LineProcess
from recipe.reward.processes.tier3 import Opinion, Pair, Tier3, may_be_asked
from recipe.reward.verdict import Verdict
from verl_patches.utils.reward_score.r1_zero import compute_score, compute_scores

FOLDER = Path(tier3.__file__).parent
REPOSITORY = Path(__file__).parents[4]

# Answers and truths with the same characters are the same, but for brackets and spaces.
STAND_IN = """
import os, sys, time
sys.path.insert(0, {folder!r})
import tier3_worker

def compare(answer, truth):
    if "hang" in answer:
        while True:
            pass
    if "wait" in answer:
        time.sleep(60)
    if "eat" in answer:
        bytearray(8 << 30)
    if "write" in answer:
        with open(__file__ + ".written", "w") as file:
            file.write("x")
    if "die" in answer:
        os._exit(1)
    if "babble" in answer:
        print("x" * 10 ** 7, end="", flush=True)
        time.sleep(60)
    if "code" in answer:
        return __import__("builtins").eval("'correct'")
    if "odd" in answer:
        raise ValueError(answer)
    same = sorted(answer.strip("() ")) == sorted(truth.strip("() "))
    return "correct" if {same} else "wrong"

tier3_worker.load = lambda: compare
{main}
"""
RIGHT, OTHER = ("\\Re x+y", "y+\\Re x"), ("\\Re x+z", "y+\\Re x")


@pytest.fixture
def stand_in(tmp_path: Path) -> Iterator[Callable[..., Tier3]]:
    started: list[Tier3] = []

    def start(same: str = "same or sorted('1+sinx') == sorted(set(answer) - set(' ()' + chr(92)))",
             main: str = "tier3_worker.main()", **settings: Any) -> Tier3:  # fmt: skip
        program = tmp_path / "grader.py"
        program.write_text(STAND_IN.format(folder=str(FOLDER), same=same, main=main), encoding="utf-8")
        started.append(Tier3(worker=program, **settings))
        return started[-1]

    yield start
    for tier in started:
        tier.close()


def verdicts(opinions: dict[Pair, Opinion]) -> list[str]:
    return [opinion.verdict.value for opinion in opinions.values()]


class Recorder(Tier3):
    """Says "correct" to everything, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Pair] = []

    def ask(self, pairs: Sequence[Pair]) -> dict[Pair, Opinion]:
        self.seen += pairs
        return {pair: Opinion(Verdict.CORRECT, 0) for pair in pairs}


def respond(answer: str, thought: str = "") -> str:
    return f"<think>{thought}</think><answer>\\boxed{{{answer}}}</answer>"


def test_verdicts_come_in_the_order_of_the_pairs(stand_in: Callable[..., Tier3]) -> None:
    tier = stand_in(workers=2)
    assert tier.pids() == []
    assert verdicts(tier.ask([RIGHT, OTHER, ("\\Re x", "7"), RIGHT])) == ["correct", "wrong", "unparseable"]
    pids = tier.pids()
    assert verdicts(tier.ask([OTHER])) == ["wrong"] and tier.pids() == pids


@pytest.mark.parametrize(
    ("answer", "verdict", "lost"),
    [
        ("\\wait", "timeout", 1),
        ("\\hang", "timeout", 1),
        ("\\die", "error", 2),
        ("\\eat", "error", 2),
        ("\\babble", "error", 2),
        ("\\write", "unparseable", 0),
        ("\\code", "unparseable", 0),
        ("\\odd", "unparseable", 0),
    ],
)
def test_a_hostile_answer_costs_only_itself(
    stand_in: Callable[..., Tier3], tmp_path: Path, answer: str, verdict: str, lost: int
) -> None:
    tier = stand_in(seconds=1.0)
    opinions = tier.ask([RIGHT, (answer, "\\sin x"), OTHER])
    assert verdicts(opinions) == ["correct", verdict, "wrong"]
    assert [opinion.lost for opinion in opinions.values()] == [0, lost, 0]
    assert len(tier.pids()) == 1
    assert [path.read_bytes() for path in tmp_path.glob("*.written")] in ([], [b""])


def test_kill_9_changes_no_verdict(stand_in: Callable[..., Tier3]) -> None:
    tier = stand_in(seconds=30.0)
    tier.ask([RIGHT])
    (victim,) = tier.pids()
    os.kill(victim, signal.SIGSTOP)  # so that the kill below hits it while it has an answer
    killer = threading.Timer(0.3, os.kill, (victim, signal.SIGKILL))
    killer.start()
    opinions = tier.ask([RIGHT, OTHER])
    killer.join()
    assert verdicts(opinions) == ["correct", "wrong"]
    assert victim not in tier.pids() and len(tier.pids()) == 1


def test_a_batch_of_hanging_answers_has_a_deadline(stand_in: Callable[..., Tier3]) -> None:
    tier = stand_in(seconds=0.3, batch_seconds=1.0)
    start = time.monotonic()
    opinions = tier.ask([(f"\\wait {place}", "\\sin x") for place in range(100)])
    assert time.monotonic() - start < 60
    assert set(verdicts(opinions)) == {"timeout"}
    assert 0 < sum(opinion.lost for opinion in opinions.values()) < 10


def test_processor_time_is_limited_without_anyone_who_waits(stand_in: Callable[..., Tier3]) -> None:
    command = stand_in().slots[0].command
    worker = LineProcess(command, environment={}, quiet=True)
    assert worker.ask(None, 1, 60, str) == (["ready"], False)
    # Ended by its own limit, far from the deadline.
    assert worker.ask(["\\hang", "x", 0.1], 1, 60, str) == ([], False)
    # And with its input it ends by itself: nothing is left behind when a trainer is killed.
    assert subprocess.run(command, input="", capture_output=True, timeout=60, check=False, text=True).returncode == 0


def test_a_wrong_canary_stops_the_run(stand_in: Callable[..., Tier3]) -> None:
    with pytest.raises(CanaryError, match=r"the canary of tier 3 .* was graded correct; expected wrong"):
        stand_in(same="True").ask([OTHER])


@pytest.mark.parametrize(
    "main", ["sys.exit(1)", "print('no', flush=True)", "tier3_worker.say('steady'); time.sleep(60)"]
)
def test_processes_that_do_not_start_are_one_error(stand_in: Callable[..., Tier3], main: str) -> None:
    tier = stand_in(main=main)
    with pytest.raises(GraderError, match=r"do not start; run .*grader\.py to see why"):
        tier.ask([OTHER])
    assert tier.pids() == []


def test_an_endless_line_does_not_fill_our_memory() -> None:
    babbling = LineProcess([sys.executable, "-c", f"print('1' * {LONGEST_LINE + 1}); input()"])
    assert babbling.ask(None, 1, 60, str) == ([], False) and babbling.pid is None


ASKED = [
    ("\\Re(2x)", "2\\Re x"),
    ("x\\subset y", "y\\supset x"),
    ("2n!!", "n!!+n!!"),
    ("f(x)=\\Re x", "\\Re x"),
    ("12\\textdegree", "12"),
    ("\\fbox{-\\frac{1}{2}}", "-0.5"),
    ("\\color{red}12", "x=12"),
]
NOT_ASKED = [
    ("5!", "120"),
    ("5!!", "15"),
    ("12 13\\color{red}", "12"),
    ("\\fbox{6+6}", "12"),
    ("\\fbox{\\frac{24}{2}}", "12"),
    ("\\fbox{18-6}", "12"),
    ("\\fbox{12=12}", "12"),
    ("\\fbox{12\\sqrt1}", "12"),
    ("\\frac{24}{2}\\cdot\\fbox{}", "12"),
    ("\\log_2 8", "3"),
    ("\\sin(\\pi/2)", "x=1"),
    ("\\int_1^2 dx/x", "\\ln 2"),
    ("\\iint x", "\\ln 2"),
    ("\\frac{d}{dx}\\sin x", "\\cos x"),
    ("\\frac{\\partial}{\\partial x}\\sin x", "\\cos x"),
    ("\\sum_{i=1}^n \\sin i", "\\sin 1+\\sin 2"),
    ("\\lim_{x\\to 1}\\ln x", "\\ln 1"),
    ("\\binom{n}{2}\\sin x", "n(n-1)/2\\sin x"),
    ("\\sin x" + " " * 400, "\\sin x+1"),
]


@pytest.mark.parametrize(("answer", "truth"), ASKED)
def test_what_may_be_asked(answer: str, truth: str) -> None:
    assert grade_answer(answer, truth) is Verdict.UNPARSEABLE and may_be_asked(answer, truth)


@pytest.mark.parametrize(("answer", "truth"), NOT_ASKED)
def test_an_answer_that_leaves_work_to_do_is_not_asked(answer: str, truth: str) -> None:
    assert not may_be_asked(answer, truth)


@given(st.text(max_size=60), st.text(max_size=60))
def test_any_pair_may_be_thought_of(answer: str, truth: str) -> None:
    assert may_be_asked(answer, truth) in (True, False)


def test_only_what_tiers_1_and_2_cannot_read_is_asked() -> None:
    seen: list[Pair] = []

    def appeal(answer: str, truth: str) -> Verdict:
        seen.append((answer, truth))
        return Verdict.CORRECT

    for answer, truth in [("2", "2"), ("2", "3"), ("", "\\Re x"), (None, "\\Re x"), ("\\Re x", None)]:
        assert grade_answer(answer, truth, appeal) is grade_answer(answer, truth)
    assert seen == []
    assert grade_answer("\\Re x", "\\Re(x)", appeal) is Verdict.CORRECT
    assert seen == [("\\Re x", "\\Re(x)")]


@pytest.mark.parametrize(
    ("by_truth", "best"),
    [
        (("wrong", "correct"), "correct"),
        (("wrong", "timeout"), "timeout"),
        (("unparseable", "error"), "error"),
        (("unparseable", "wrong"), "wrong"),
        (("unparseable", "unparseable"), "unparseable"),
    ],
)
def test_of_several_truths_the_best_verdict_counts(by_truth: tuple[str, str], best: str) -> None:
    opinions = dict(zip(("\\Re y", "\\Im y"), by_truth, strict=True))
    verdict = grade_answer("\\Re z", list(opinions), lambda answer, truth: Verdict(opinions[truth]))
    assert verdict.value == best


SAMPLES: list[tuple[Any, Any]] = [
    (respond("7"), "7"),
    (respond("8"), "7"),
    ("no answer", "7"),
    (None, "7"),
    (respond(RIGHT[0]), RIGHT[1]),
    (respond(OTHER[0]), OTHER[1]),
    (respond(OTHER[0]), [RIGHT[1], OTHER[0]]),
    (respond("\\wait"), "\\Re x"),
    (respond("\\wait"), "\\Re x"),
    (respond("5!"), "120"),
]


def test_a_batch_with_tier_3_differs_only_in_what_it_read(stand_in: Callable[..., Tier3]) -> None:
    before = [compute_score("x", *sample) for sample in SAMPLES]
    pool = Pool(tier3=stand_in(seconds=0.5))
    graded = pool.grade(SAMPLES)
    pool.close()
    after = [sample.result.as_dict() for sample in graded]
    changed = [place for place, sample in enumerate(before) if sample != after[place]]
    assert changed == [4, 5, 7, 8]
    assert [before[place]["verdict"] for place in changed] == ["unparseable"] * 4
    assert [after[place]["verdict"] for place in changed] == ["correct", "wrong", "timeout", "timeout"]
    assert [after[place]["score"] for place in changed] == [1.0, 0.33, 0.33, 0.33]
    # Two samples with the same answer cost one process, and it is counted once.
    assert sum(sample.lost for sample in graded) == 1


def test_a_batch_without_unreadable_answers_starts_no_process(stand_in: Callable[..., Tier3]) -> None:
    tier = stand_in()
    pool = Pool(tier3=tier)
    pool.grade([*SAMPLES[:4], SAMPLES[-1]])
    assert tier.pids() == []
    pool.close()


def test_each_rule_of_a_mix_asks_about_the_answer_it_looks_at() -> None:
    recorder = Recorder()
    pool = Pool(mix={"format": 0.5, "math_17k_acc": 0.5}, tier3=recorder)
    (graded,) = pool.grade([("<answer>?</answer>\\boxed{\\Re x}", "\\Re(x)")])
    pool.close()
    assert recorder.seen == [("\\Re x", "\\Re(x)")]
    assert graded.result.score == 0.5 and graded.result.verdict is Verdict.NO_ANSWER


@pytest.mark.parametrize("mix", [None, {"acc": 1.0}])
def test_a_sample_that_was_given_up_is_not_read_again(mix: dict[str, float] | None, tmp_path: Path) -> None:
    program = tmp_path / "worker.py"
    program.write_text(
        f"import os, sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from recipe.reward import verifiers\nfrom recipe.reward.processes import worker\noriginal = verifiers.verify\n"
        "verifiers.verify = lambda *all: os._exit(1) if 'die' in all[1] else original(*all)\n"
        "worker.serve(sys.stdin, sys.stdout)\n",
        encoding="utf-8",
    )
    recorder = Recorder()
    pool = Pool(mix=mix, worker=program, tier3=recorder)
    (graded,) = pool.grade([(respond("\\die"), "\\sin x")])
    pool.close()
    assert graded.result.verdict is Verdict.ERROR and recorder.seen == []


def test_a_run_names_it_beside_its_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_POOLS", {})
    monkeypatch.setattr(batch, "Tier3", lambda count: Recorder())
    monkeypatch.setitem(tier3.GRADERS, "math_verify", "json")  # a package that is there
    batch_of_one = (["x"], [respond("\\Re x")], ["\\Re(x)"])
    for name, verdict in ((None, "unparseable"), ("math_verify", "correct"), (None, "unparseable")):
        (graded,) = compute_scores(*batch_of_one, workers=1, tier3=name)
        assert graded["verdict"] == verdict
    for pool in batch._POOLS.values():
        pool.close()


def test_a_missing_package_is_one_error_before_anything_is_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tier3.GRADERS, "math_verify", "no_such_package")
    for responses in ([], ["x"]):
        with pytest.raises(ValueError, match=r"not installed here; run: .* -m pip install -r requirements-tier3.txt"):
            compute_scores(["x"] * len(responses), responses, ["1"] * len(responses), workers=1, tier3="math_verify")
    with pytest.raises(ValueError, match="unknown tier3 'sympy'; known are math_verify"):
        compute_scores(["x"], ["a"], ["b"], workers=1, tier3="sympy")
    with pytest.raises(ValueError, match="needs verl's batch reward manager"):
        compute_score("x", "a", "b", tier3="math_verify")
    assert (REPOSITORY / tier3.REQUIREMENTS).is_file()


def test_tiers_1_and_2_load_nothing_of_it() -> None:
    source = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from verl_patches.utils.reward_score.r1_zero import compute_scores\n"
        "compute_scores(['x'], ['<answer>\\\\boxed{\\\\sin x}</answer>'], ['1'], workers=1)\n"
        "assert not {'sympy', 'math_verify', 'latex2sympy2_extended'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", source], check=False, timeout=120).returncode == 0
