# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: RUF001 (texts to try have letters of many scripts)
"""Byte-pair encoding by ranks as it is defined, and whether a tokenizer.json has the same ids.

A text is cut at special tokens, and between them by the pattern; in each piece, from single bytes on, the adjacent pair
whose bytes together have the lowest rank becomes one token, the first of several, until no pair has a rank. A piece
that is a token as a whole is that token.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from recipe.tokenizer.special_tokens import SpecialToken
from recipe.weights.errors import WeightsError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# What patterns treat in ways of their own: digits, contractions, line ends, blanks, scripts, marks.
_TEXTS = (
    "",
    "It's 1234567 o'clock; they'LL see we'd, I'm 3.14159!",
    "  two  blanks\t\ttabs \r\n\n lines   \n  end  ",
    "\\boxed{\\frac{1}{2}} = $x^{2}$ // <think>x</think>",
    "中文English混合，第１２３章。日本語のテキスト 한국어 𠮷野家 〇 々",
    "e\u0301 n\u0303 ÄÖÜß \u0149 \u017f \U0001f600\U0001f469\u200d\U0001f467 \U0001f1e8\U0001f1f3",
    "\x00\x7f\u0085\u00a0\u2028\u3000\ufeff",
)
_DRAWN = 1000


class BytePairs:
    """The encoder of a tiktoken tokenizer, slow and plain."""

    def __init__(self, ranks: dict[bytes, int], pattern: str, tokens: Sequence[SpecialToken]) -> None:
        """WeightsError where the pattern is none. `ranks`: of each token, by its bytes."""
        import regex

        self.ranks = ranks
        self.ids = {token.name: token.id for token in tokens}
        longest_first = sorted(self.ids, key=len, reverse=True)
        self._names = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        try:
            self._pattern: Any = regex.compile(pattern, regex.VERSION1)
        except (regex.error, RecursionError, OverflowError) as error:
            raise WeightsError(
                f"the pattern {pattern[:80]!r} cannot be read ({error}); give it with --pattern-file"
            ) from None

    def encode(self, text: str) -> list[int]:
        """The ids of a text. What the pattern does not match has none."""
        ids, begin = [], 0
        for name in self._names.finditer(text):
            ids += [*self._plain(text[begin : name.start()]), self.ids[name[0]]]
            begin = name.end()
        return [*ids, *self._plain(text[begin:])]

    def _plain(self, text: str) -> list[int]:
        return [id for piece in self._pattern.finditer(text) for id in self._paired(piece[0].encode())]

    def _paired(self, piece: bytes) -> list[int]:
        if piece in self.ranks:
            return [self.ranks[piece]]
        parts = [piece[place : place + 1] for place in range(len(piece))]
        while True:
            pairs = [self.ranks.get(left + right) for left, right in pairwise(parts)]
            known = [rank for rank in pairs if rank is not None]
            if not known:
                return [self.ranks[part] for part in parts]
            place = pairs.index(min(known))
            parts[place : place + 2] = [parts[place] + parts[place + 1]]


def compare(tokenizer: Tokenizer, plain: BytePairs) -> int:
    """Encode texts with both, and decode them: some written here, others drawn from all tokens; how many there were.

    Raises:
        WeightsError: a text with other ids, or that does not come back.
    """
    texts = list(_texts(plain))
    for text in texts:
        ids, expected = tokenizer.encode(text, add_special_tokens=False).ids, plain.encode(text)
        if ids != expected:
            raise WeightsError(
                f"{text[:60]!r} has the ids {ids[:12]} with the tokenizers library's reading of the pattern, and "
                f"{expected[:12]} by the ranks; give a pattern that means the same to both with --pattern-file"
            )
        back = tokenizer.decode(ids, skip_special_tokens=False)
        if back != text:
            raise WeightsError(
                f"{text[:60]!r} comes back from its ids as {back[:60]!r}; expected a pattern that leaves nothing out"
            )
    return len(texts)


def _texts(plain: BytePairs) -> Iterator[str]:
    yield from _TEXTS
    draw = random.Random(0)
    tokens, names = list(plain.ranks), list(plain.ids)
    for _ in range(_DRAWN):
        drawn = b"".join(draw.choices(tokens, k=draw.randint(1, 8))).decode("utf-8", "ignore")
        yield drawn + draw.choice(names) + drawn[:5] if names and draw.random() < 0.2 else drawn
