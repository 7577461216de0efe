# SPDX-License-Identifier: Apache-2.0
"""The tokenizer of the tokenizers library that has the ids of a tiktoken tokenizer, and its tokenizer_config.json."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from recipe.tokenizer.special_tokens import SpecialToken
from recipe.weights.errors import WeightsError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def fast_tokenizer(ranks: dict[bytes, int], pattern: str, tokens: Sequence[SpecialToken]) -> Tokenizer:
    """Ranks become a vocabulary and its merges: every two tokens whose bytes together are a token, by its rank.

    Args:
        ranks: of each token, by its bytes, in the order of the ranks.
        pattern: cuts a text into pieces; each match is one.
        tokens: the special tokens, in the order of their ids, which go on behind the ranks.

    Raises:
        WeightsError: the library cannot read the pattern, or a special token has the text of another token.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    letters = _letters()
    names = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = [(names[left], names[right]) for left, right in _pairs(ranks)]
    vocabulary = {names[token]: rank for token, rank in ranks.items()}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, fuse_unk=False, byte_fallback=False, ignore_merges=True))
    try:
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
    except Exception as error:  # the library has no narrower one
        raise WeightsError(
            f"the pattern {pattern[:80]!r} cannot be used ({error}); give it with --pattern-file"
        ) from None
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    for token in tokens:
        tokenizer.add_tokens([AddedToken(token.name, normalized=False, special=token.special)])
        if tokenizer.token_to_id(token.name) != token.id:
            raise WeightsError(
                f"the special token {token.name!r} is the ordinary token {vocabulary.get(token.name)} too"
            )
    return tokenizer


def plain_tokenizer_config(config: dict[str, Any], tokens: Sequence[SpecialToken]) -> bytes:
    """tokenizer_config.json that transformers loads without foreign code: all else as it is, its chat template too."""
    out = {key: value for key, value in config.items() if key != "auto_map"}
    out["tokenizer_class"] = "PreTrainedTokenizerFast"
    out["clean_up_tokenization_spaces"] = False
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    out["added_tokens_decoder"] = {
        str(token.id): {"content": token.name, **flags, "special": token.special} for token in tokens
    }
    return (json.dumps(out, indent=2, ensure_ascii=False) + "\n").encode()


def _pairs(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    for token in ranks:
        cuts = ((token[:place], token[place:]) for place in range(1, len(token)))
        known = [(left, right) for left, right in cuts if left in ranks and right in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _letters() -> list[str]:
    """The letter that the library's byte-level tokens have for each byte: its own where that can be seen in Latin-1,
    the others in their order from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in visible else next(others)) for byte in range(256)]
