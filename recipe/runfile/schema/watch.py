# SPDX-License-Identifier: Apache-2.0
"""`[watch]`: what ends a run that goes wrong."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.typed_toml import FREE, key

# What a rule does when a run has broken it.
STOP_RUN, WARN, OFF = ACTIONS = ("stop", "warn", "off")


@dataclass(frozen=True, kw_only=True)
class Watch:
    """The watch over the training: what each rule does once its number of steps in a row has broken it.

    stop: it warns, and later ends the run with exit code 3; warn: it only warns; off: it says nothing. docs/WATCH.md
    has the rules, their reasons and their numbers of steps.
    """

    enabled: bool = key("false: all rules are off", True, on_resume=FREE)
    not_finite: str = key(
        "loss, gradient norm, KL or reward not a number or infinite", STOP_RUN, choices=ACTIONS, on_resume=FREE
    )
    zero_gradient: str = key("gradient norm 0", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    equal_rewards: str = key("all rewards equal, and not the highest seen", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    solved: str = key("all rewards equal to the highest seen", WARN, choices=(WARN, OFF), on_resume=FREE)
    entropy_high: str = key("entropy near the logarithm of the vocabulary", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    entropy_high_share: float = key("near: this share of it", 0.9, least=0.1, most=1, on_resume=FREE)
    entropy_low: str = key("entropy near 0", WARN, choices=ACTIONS, on_resume=FREE)
    entropy_low_nats: float = key("near: below this, per token", 0.01, unit="nats", least=0, on_resume=FREE)
    cut_off: str = key("many answers cut at the length limit", WARN, choices=ACTIONS, on_resume=FREE)
    cut_off_share: float = key("many: more than this share", 0.5, least=0, most=1, on_resume=FREE)
    length_collapse: str = key("answers much shorter than they were", WARN, choices=ACTIONS, on_resume=FREE)
    length_collapse_share: float = key("much: below this share of the longest", 0.25, least=0, most=1, on_resume=FREE)
    reward_drop: str = key("reward far below its best", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    reward_drop_share: float = key("far: by more than this share of it", 0.5, least=0, on_resume=FREE)
    validation_drop: str = key("validation score far below its best", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    validation_drop_share: float = key("far: by more than this share of it", 0.5, least=0, on_resume=FREE)
    rollout_pearson: str = key("low correlation of rollout and actor", WARN, choices=ACTIONS, on_resume=FREE)
    rollout_pearson_least: float = key("low: below this", 0.95, least=-1, most=1, on_resume=FREE)
    rollout_kl: str = key("high divergence of rollout and actor", STOP_RUN, choices=ACTIONS, on_resume=FREE)
    rollout_kl_most: float = key(
        "high: above this, per token, in either direction", 0.02, unit="nats", least=0, on_resume=FREE
    )
    routing_replay: str = key(
        "the actor does not take the experts that it is given", STOP_RUN, choices=ACTIONS, on_resume=FREE
    )
