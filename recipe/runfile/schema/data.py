# SPDX-License-Identifier: Apache-2.0
"""`[data]` and `[reward]`: the problems, and what an answer to one earns."""

from __future__ import annotations

from dataclasses import dataclass

from recipe.reward.verifiers import DEFAULT
from recipe.runfile.typed_toml import CHANGES, FREE, key


@dataclass(frozen=True, kw_only=True)
class Data:
    """Problems, and how long they and their answers may be."""

    kind: str = key(
        "arithmetic: the sums that go with the tiny model; json: one DeepScaleR-schema file, converted at launch; "
        "parquet: two files of scripts/json_to_parquet.py",
        "arithmetic",
        choices=("arithmetic", "json", "parquet"),
        on_resume=CHANGES,
    )
    path: str | None = key("kind json: the file", None, on_resume=CHANGES)
    train_path: str | None = key(
        "kind parquet: problems to learn from", None, gives="data.train_files", on_resume=CHANGES
    )
    validation_path: str | None = key(
        "kind parquet: problems to validate on", None, gives="data.val_files", on_resume=CHANGES
    )
    template: str = key(
        "prompt template: a name of data/templates.toml, FILE.toml or FILE.toml:NAME", "r1_zero", on_resume=CHANGES
    )
    chat_template: str | None = key(
        "file of the chat template (Jinja) that renders the prompts; default: the tokenizer's own, or "
        "data/chat_template.jinja where it has none",
        None,
        gives="data.apply_chat_template_kwargs.chat_template, model.custom_chat_template",
        on_resume=CHANGES,
    )
    max_prompt_tokens: int = key(
        "longer prompts are left out; sim: the longest prompt, if shorter, sets the padded length",
        unit="tokens",
        least=1,
        gives="data.max_prompt_length",
        on_resume=CHANGES,
    )
    max_response_tokens: int = key(
        "longest answer",
        unit="tokens",
        least=1,
        gives="data.max_response_length, rollout.max_model_len",
        on_resume=CHANGES,
    )
    train_share: float = key("kind json: share of the problems to learn from", 0.9, least=0, most=1, on_resume=CHANGES)
    validation_problems: int = key(
        "so many of the first problems are validated; 0: all",
        64,
        gives="data.val_max_samples",
        on_resume=CHANGES,
    )


@dataclass(frozen=True, kw_only=True)
class Reward:
    """The rule that pays; docs/REWARDS.md has them all."""

    verifier: str = key("name of the rule", DEFAULT, gives="reward_kwargs.verifier", on_resume=CHANGES)
    mix: dict[str, float] = key(
        "weights of several rules by their names, instead of `verifier`",
        {},
        gives="reward_kwargs.mix",
        on_resume=CHANGES,
    )
    workers: int = key(
        "processes that grade; 0: the trainer's own",
        0,
        gives="reward_kwargs.workers, reward_model.reward_manager, custom_reward_function.name",
        on_resume=FREE,
    )
    tier3: str | None = key(
        "what is asked about answers that the grammar cannot read: math_verify; default: nothing",
        None,
        gives="reward_kwargs.tier3",
        on_resume=CHANGES,
    )
    refuse_copied: bool = key(
        "an answer that hands in work of the problem undone earns nothing; needs the problem in extra_info, where "
        "scripts/json_to_parquet.py puts it",
        True,
        gives="reward_kwargs.refuse_copied",
        on_resume=CHANGES,
    )
    path: str = key(
        "another file with compute_score and compute_scores, relative to the repository",
        "verl_patches/utils/reward_score/r1_zero.py",
        gives="custom_reward_function.path",
        on_resume=CHANGES,
    )
