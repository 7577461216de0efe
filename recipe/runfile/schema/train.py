# SPDX-License-Identifier: Apache-2.0
"""`[train]`: the optimizer and the loss."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.runfile.typed_toml import CHANGES, key

ON_POLICY = "npu_on_policy"
LOSS_MODES = ("vanilla", ON_POLICY)
REPLAY_OFF, REPLAY_ROLLOUT = "off", "rollout"


@dataclass(frozen=True, kw_only=True)
class Train:
    """The optimizer and the loss.

    `loss_mode` "vanilla": PPO's clipped objective, with a forward pass for the old log-probabilities; "npu_on_policy":
    the same loss without that pass, as the old are the current ones. What verl computes from that pass, the agreement
    of rollout and actor and the entropy, then comes from the passes of the update.

    `routing_replay` "rollout": which experts the sampler chose for each token is kept and sent along, and the actor's
    routers take the same in every pass, weighed by their own scores; the reference, another model, goes on choosing by
    itself. docs/MISMATCH.md says what that is for.
    """

    prompts_per_step: int = key("problems of one step", least=1, gives="data.train_batch_size", on_resume=CHANGES)
    updates_per_step: int = key(
        "optimizer steps on the samples of one step; above 1 the later ones are off policy",
        1,
        least=1,
        gives="actor.ppo_mini_batch_size",
        on_resume=CHANGES,
    )
    learning_rate: float = key("constant after the warm-up", least=0, gives="actor.optim.lr", on_resume=CHANGES)
    warmup_steps: int = key(
        "updates until the learning rate is reached", 0, gives="actor.optim.lr_warmup_steps", on_resume=CHANGES
    )
    weight_decay: float = key("Adam's", 0.01, least=0, gives="actor.optim.weight_decay", on_resume=CHANGES)
    adam_beta2: float = key(
        "Adam's second coefficient; the first is 0.9",
        0.999,
        least=0,
        most=1,
        gives="actor.optim.override_optimizer_config.adam_beta2",
        on_resume=CHANGES,
    )
    max_gradient_norm: float = key(
        "longer gradients are shortened to this",
        1.0,
        least=0,
        gives="actor.optim.clip_grad",
        on_resume=CHANGES,
    )
    clip_ratio: float = key(
        "PPO's clip of the probability ratio",
        0.2,
        least=0,
        gives="actor.clip_ratio, actor.clip_ratio_low",
        on_resume=CHANGES,
    )
    clip_ratio_high: float | None = key(
        "its upper side, if another", None, least=0, gives="actor.clip_ratio_high", on_resume=CHANGES
    )
    kl_coefficient: float = key(
        "weight of the KL divergence from the reference",
        0.001,
        least=0,
        gives="actor.kl_loss_coef",
        on_resume=CHANGES,
    )
    kl_estimator: str = key(
        "its estimator per token",
        "low_var_kl",
        choices=("low_var_kl", "kl", "mse", "abs"),
        gives="actor.kl_loss_type",
        on_resume=CHANGES,
    )
    balance_batch: bool = key(
        "the ranks of the actor get about as many tokens each; false: as many sequences, as they come",
        True,
        gives="trainer.balance_batch",
        on_resume=CHANGES,
    )
    importance_weights: str = key(
        "verl's rollout correction: a token's loss is weighed by how much likelier the actor finds it than the rollout "
        "did, by itself or with its whole answer; needs loss_mode vanilla",
        "off",
        choices=("off", "token", "sequence"),
        gives="algorithm.rollout_correction.rollout_is",
        on_resume=CHANGES,
    )
    importance_most: float = key(
        "no such weight is above this",
        2.0,
        least=1,
        gives="algorithm.rollout_correction.rollout_is_threshold",
        on_resume=CHANGES,
    )
    loss_mode: str = key(
        f"vanilla: with a pass for the old log-probabilities; {ON_POLICY}: without, for one update a step",
        "vanilla",
        choices=LOSS_MODES,
        gives="actor.policy_loss.loss_mode, algorithm.rollout_correction.bypass_mode",
        on_resume=CHANGES,
    )
    routing_replay: str = key(
        "rollout: the actor's routers take the experts that the sampler chose; off: their own",
        REPLAY_OFF,
        choices=(REPLAY_OFF, REPLAY_ROLLOUT),
        gives="RECIPE_ROUTING_REPLAY",
        on_resume=CHANGES,
    )
