# SPDX-License-Identifier: Apache-2.0
"""The rules, as docs/WATCH.md lists them."""

from __future__ import annotations

import math

from recipe.report.metrics import (
    ADVANTAGE_MAX,
    ADVANTAGE_MIN,
    CUT_OFF,
    ENTROPY,
    GRADIENT_NORM,
    KL_KEYS,
    LOSS,
    PEARSON,
    PROBABILITY_GAP,
    REFERENCE_KL,
    REPLAYED,
    RESPONSE_LENGTH,
    REWARD,
    SCORE_MAX,
    SCORE_MIN,
)
from recipe.watch.history import LENGTH_WINDOW, REWARD_WINDOW, Series, StepView
from recipe.watch.rule import RULES, NothingToJudge, Symptom, rule

__all__ = ["RULES"]

# Rewards are float32, so the mean of equal rewards may differ from them in the last digits.
EQUAL = 1e-6
# The smallest fall that counts: less is noise in a mean over a few hundred answers, or some dozens of problems.
LEAST_FALL = 0.1
# Rollout and actor agree where no token's probability differs by more, whatever their correlation: between near
# constants it is noise.
NEGLIGIBLE_GAP = 0.01


def _figure(view: StepView, name: str) -> float:
    """A metric of this step.

    Raises:
        NothingToJudge: the step does not have it.
    """
    value = view.value(name)
    if value is None:
        raise NothingToJudge
    return value


def _updated(view: StepView) -> None:
    """Raises NothingToJudge for a step without an update, such as the validation before the training."""
    if view.value(GRADIENT_NORM) is None:
        raise NothingToJudge


@rule(
    "not_finite",
    "loss, gradient norm, KL or reward is not a number or infinite",
    why="the update has put it, or puts it, into every weight: nothing that is computed from them is of use any more",
    counts="one such step is enough: weights do not recover",
    warn_after=1,
    stop_after=1,
    of_learning=False,
)
def _not_finite(view: StepView) -> Symptom | None:
    values = view.all_of(LOSS, GRADIENT_NORM, REFERENCE_KL, "actor/ppo_kl", *KL_KEYS, REWARD, "critic/rewards/mean")
    if not values:
        raise NothingToJudge
    wrong = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
    return Symptom(", ".join(wrong)) if wrong else None


@rule(
    "zero_gradient",
    "the gradient norm is 0",
    why="the loss does not depend on the weights any more: the policy is saturated, or has died. Where no answer has "
    "an advantage and the divergence from the reference is 0, or weighs nothing, 0 is right: `equal_rewards` judges it",
    counts="a single one may be an odd batch; with a second, nothing but momentum and decay moves the weights",
    warn_after=1,
    stop_after=2,
)
def _zero_gradient(view: StepView) -> Symptom | None:
    norm = _figure(view, GRADIENT_NORM)
    if norm != 0:
        return None
    pulled = view.context.kl_coefficient > 0 and view.value(REFERENCE_KL) != 0
    if _no_advantage(view) and not pulled:
        raise NothingToJudge
    reward = view.value(REWARD)
    return Symptom("with no reward in the metrics" if reward is None else f"with a mean reward of {reward:.3f}")


def _no_advantage(view: StepView) -> bool:
    """Whether no answer of the step was better or worse than the others to its problem."""
    for low, high in ((SCORE_MIN, SCORE_MAX), (ADVANTAGE_MIN, ADVANTAGE_MAX)):
        lowest, highest = view.value(low), view.value(high)
        if lowest is not None and highest is not None and highest - lowest <= EQUAL:
            return True
    return False


def _solved(view: StepView) -> bool:
    """Whether every answer has the highest reward that any had, and there were lower ones."""
    lowest = view.value(SCORE_MIN)
    seen = view.history
    return lowest is not None and lowest >= seen.highest_score - EQUAL and seen.lowest_score < lowest - EQUAL


@rule(
    "equal_rewards",
    "all rewards are equal, so no answer has an advantage",
    why="GRPO learns from differences between the answers to a problem. Without any, a step costs as much as another "
    "and moves the policy only towards the reference: the reward cannot read the answers, all are wrong, or the policy "
    "has died",
    counts="three in a row are no accident among hundreds of answers; a base model may still find its first right "
    "answer after a few steps, and hardly after 20",
    warn_after=3,
    stop_after=20,
)
def _equal_rewards(view: StepView) -> Symptom | None:
    score = _figure(view, REWARD)
    if not _no_advantage(view) or _solved(view):
        return None
    return Symptom(f"every reward is {score:.4g}")


@rule(
    "solved",
    "every answer has the highest reward seen",
    why="nothing is left to be learnt from these problems; further steps cost as much as those that learnt",
    counts="a warning, after ten steps in a row: a run that has done what it is for is no failed one",
    warn_after=10,
    stop_after=0,
)
def _solved_problems(view: StepView) -> Symptom | None:
    score = _figure(view, REWARD)
    return Symptom(f"every reward is {score:.4g}") if _no_advantage(view) and _solved(view) else None


@rule(
    "entropy_high",
    "the entropy is near the logarithm of the vocabulary",
    why="the policy chooses among all tokens alike: it has died, or was never loaded. A trained language model has a "
    "few nats at most, far below",
    counts="nothing that writes text comes near this share; a second step rules out a single odd batch",
    warn_after=1,
    stop_after=2,
    bounds=("entropy_high_share",),
)
def _entropy_high(view: StepView) -> Symptom | None:
    entropy = _figure(view, ENTROPY)
    if view.context.vocabulary is None:
        raise NothingToJudge
    most = math.log(view.context.vocabulary)
    if not entropy >= view.settings.entropy_high_share * most:
        return None
    return Symptom(f"entropy {entropy:.3f} nats, of at most {most:.3f} (ln {view.context.vocabulary})")


@rule(
    "entropy_low",
    "the entropy is near 0",
    why="a policy that always gives the same answer explores nothing, and GRPO has nothing to compare",
    counts="a warning: a policy that is sure of right answers looks the same; five steps in a row, for it varies with "
    "the problems. Not-a-number counts as bad",
    warn_after=5,
    stop_after=20,
    bounds=("entropy_low_nats",),
)
def _entropy_low(view: StepView) -> Symptom | None:
    entropy = _figure(view, ENTROPY)
    if not entropy < view.settings.entropy_low_nats and not math.isnan(entropy):
        return None
    return Symptom(f"entropy {entropy:.2g} nats")


@rule(
    "cut_off",
    "many answers are cut at the length limit",
    why="an answer without its end has no reward, so that the policy is taught to be short, or, where it cannot end, "
    "nothing: raise `[data] max_response_tokens`, or look at the answers",
    counts="a warning: a reasoner that grows past its limit still learns from the answers that are not cut; five steps "
    "in a row, for it varies with the problems",
    warn_after=5,
    stop_after=20,
    bounds=("cut_off_share",),
)
def _cut_off(view: StepView) -> Symptom | None:
    share = _figure(view, CUT_OFF)
    return Symptom(f"{share:.0%} of the answers") if share > view.settings.cut_off_share else None


@rule(
    "length_collapse",
    "answers have become much shorter than they were",
    why="a policy that has found a reward for short answers, or for none, does not reason any more",
    counts=f"means over {LENGTH_WINDOW} steps are compared; a warning: an answer may be short and right",
    warn_after=1,
    stop_after=10,
    bounds=("length_collapse_share",),
)
def _length_collapse(view: StepView) -> Symptom | None:
    _figure(view, RESPONSE_LENGTH)
    seen = view.history.length
    mean, best = _mean_and_best(seen)
    if mean >= view.settings.length_collapse_share * best:
        return None
    return Symptom(
        f"{mean:.1f} tokens on average over {LENGTH_WINDOW} steps, {best:.1f} up to step {seen.best_step}",
        seen.best_step - 1,
    )


@rule(
    "reward_drop",
    "the reward has fallen far below its best",
    why="the policy has unlearnt what it could: too high a learning rate, updates far off policy, or a reward that it "
    "has learnt to trick",
    counts=f"means over {REWARD_WINDOW} steps are compared, and a fall counts from {LEAST_FALL} on; ten steps in a "
    "row, for a policy may recover",
    warn_after=1,
    stop_after=10,
    bounds=("reward_drop_share",),
)
def _reward_drop(view: StepView) -> Symptom | None:
    _figure(view, REWARD)
    seen = view.history.reward
    mean, best = _mean_and_best(seen)
    if not _fallen(best, mean, view.settings.reward_drop_share):
        return None
    return Symptom(
        f"{mean:.3f} on average over {REWARD_WINDOW} steps, {best:.3f} up to step {seen.best_step}", seen.best_step - 1
    )


@rule(
    "validation_drop",
    "the validation score has fallen far below its best",
    why="what counts gets worse, while the training reward may still rise",
    counts=f"a fall counts from {LEAST_FALL} on; validations are rare, so the second in a row stops. "
    "Not-a-number counts as bad",
    warn_after=1,
    stop_after=2,
    bounds=("validation_drop_share",),
    of_validation=True,
)
def _validation_drop(view: StepView) -> Symptom | None:
    score = view.validation
    if score is None:
        raise NothingToJudge
    if math.isnan(score):
        return Symptom(f"validation score {score}")
    seen = view.history.validation
    best = score if seen.best is None else seen.best
    if not _fallen(best, score, view.settings.validation_drop_share):
        return None
    return Symptom(f"validation score {score:.3f}, {best:.3f} after step {seen.best_step}", seen.best_step)


def _mean_and_best(series: Series) -> tuple[float, float]:
    if series.mean is None or series.best is None:
        raise NothingToJudge
    return series.mean, series.best


def _fallen(best: float, view: float, share: float) -> bool:
    return best - view > max(share * abs(best), LEAST_FALL)


_AGREEMENT = (
    "rollout and actor compute the same model in two programs. Where their probabilities differ, the answers are not "
    "those of the policy that is trained: weights that were not handed over, another precision or router"
)
_AGREEMENT_COUNTS = (
    "a healthy tiny run of 300 steps had single steps at {worst}; two in a row are warned of, ten stop. A step that "
    "should have the figure and has none, or not-a-number, counts as bad"
)


@rule(
    "rollout_pearson",
    "rollout and actor do not agree on the probabilities (Pearson)",
    why=_AGREEMENT,
    counts=_AGREEMENT_COUNTS.format(worst="0.933")
    + f"; where no token's probability differs by more than {NEGLIGIBLE_GAP}, they agree all the same",
    warn_after=2,
    stop_after=10,
    bounds=("rollout_pearson_least",),
    of_learning=False,
)
def _rollout_pearson(view: StepView) -> Symptom | None:
    _updated(view)
    pearson, gap = view.value(PEARSON), view.value(PROBABILITY_GAP)
    if pearson is None:
        return Symptom("no Pearson correlation in the metrics")
    if math.isfinite(pearson) and gap is not None and gap <= NEGLIGIBLE_GAP:
        return None
    return None if pearson >= view.settings.rollout_pearson_least else Symptom(f"Pearson {pearson:.4f}")


@rule(
    "rollout_kl",
    "rollout and actor do not agree on the probabilities (KL)",
    why=_AGREEMENT,
    counts=_AGREEMENT_COUNTS.format(worst="0.0058 nats"),
    warn_after=2,
    stop_after=10,
    bounds=("rollout_kl_most",),
    of_learning=False,
)
def _rollout_kl(view: StepView) -> Symptom | None:
    _updated(view)
    divergences = view.all_of(*KL_KEYS)
    if not divergences:
        return Symptom("no KL of rollout and actor in the metrics")
    divergence = next(iter(divergences.values()))
    return None if abs(divergence) <= view.settings.rollout_kl_most else Symptom(f"KL {divergence:.4g} nats")


@rule(
    "routing_replay",
    "the actor does not take the experts that the sampler chose",
    why="with train.routing_replay the actor computes the network that sampled. A router that takes others than the "
    "experts it is given was given those of other tokens or layers, or may take experts of other groups only",
    counts="the share is a count: in a healthy step it is 1, whatever the rounding",
    warn_after=1,
    stop_after=2,
    of_learning=False,
)
def _routing_replay(view: StepView) -> Symptom | None:
    share = _figure(view, REPLAYED)
    return None if share == 1 else Symptom(f"{100 * share:.4f} % of the choices were followed")
