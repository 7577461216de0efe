# SPDX-License-Identifier: Apache-2.0
"""The tokens behind the ranks: named by tokenizer_config.json, the others `<|reserved_token_ID|>`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recipe.weights.errors import WeightsError

#: Keys of tokenizer_config.json with the name of a token.
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")


@dataclass(frozen=True)
class SpecialToken:
    """A token that stands in a text under its name. `special`: left out by a decoding that skips special tokens."""

    id: int
    name: str
    special: bool = True


def special_tokens(config: dict[str, Any], first: int, reserved: int, vocab_size: int) -> list[SpecialToken]:
    """Every token from the id `first` on: `reserved` of them, and more where tokenizer_config.json names more.

    Args:
        config: tokenizer_config.json.
        first: the number of ranks.
        reserved: how many there are, at least.
        vocab_size: rows of the model's embedding.

    Raises:
        WeightsError: a token that is no token, an id below `first` or without an embedding, a name twice, or a role
            (`bos_token`, ...) of a name that no token has.
    """
    named = _named(config)
    ids = range(first, first + max(reserved, max(named, default=first - 1) + 1 - first))
    outside = next((id for id in named if id not in ids), None)
    if outside is not None:
        raise WeightsError(f"added_tokens_decoder: {named[outside].name!r} has the id {outside}, that of a rank")
    if ids.stop > vocab_size:
        raise WeightsError(
            f"{first} ranks and {len(ids)} special tokens, and vocab_size = {vocab_size} in config.json; expected all "
            "of one model"
        )
    tokens = [named.get(id) or SpecialToken(id, f"<|reserved_token_{id}|>") for id in ids]
    names = {token.name: token.id for token in tokens}
    double = next((token for token in tokens if names[token.name] != token.id), None)
    if double is not None:
        raise WeightsError(f"added_tokens_decoder: {double.name!r} has two ids, {double.id} and {names[double.name]}")
    for role, name in _roles(config):
        if name not in names:
            raise WeightsError(f"tokenizer_config.json: {role} is {name!r}, and no special token has this name")
    return tokens


def _named(config: dict[str, Any]) -> dict[int, SpecialToken]:
    entries = config.get("added_tokens_decoder", {})
    tokens: dict[int, SpecialToken] = {}
    for id, entry in entries.items() if isinstance(entries, dict) else [("", entries)]:
        name = entry.get("content") if isinstance(entry, dict) else None
        if not (id.isascii() and id.isdecimal() and len(id) < 10 and isinstance(name, str) and name):
            raise WeightsError(
                f"tokenizer_config.json: added_tokens_decoder has {str(id)[:40]!r}: {str(entry)[:80]!r}; expected an "
                "id and a token with its content"
            )
        tokens[int(id)] = SpecialToken(int(id), name, entry.get("special", True) is True)
    return tokens


def _roles(config: dict[str, Any]) -> list[tuple[str, Any]]:
    values = [(role, config.get(role)) for role in ROLES]
    more = config.get("additional_special_tokens")
    values += [("additional_special_tokens", value) for value in (more if isinstance(more, list) else [])]
    return [
        (role, value.get("content") if isinstance(value, dict) else value)
        for role, value in values
        if value is not None
    ]
