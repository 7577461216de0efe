# SPDX-License-Identifier: Apache-2.0
"""Cuts a tidied answer into tokens: tier 2 reads nothing that is not one of these."""

from __future__ import annotations

import re
from typing import NamedTuple

from recipe.reward.grammar.names import FUNCTIONS, NAMES

#: Longest answer that the grammar reads, in characters and in tokens; most digits of one number.
LONGEST_EXPRESSION = 400
MOST_TOKENS = 250
MOST_DIGITS = 100


class GrammarError(ValueError):
    """The text is outside the grammar or above one of its budgets."""


class Token(NamedTuple):
    """A piece of the text, without the braces of ``\\text{…}``.

    ``kind`` is number, letters, command, text, environment or sign; ``spaced``: whitespace stands before it.
    """

    kind: str
    text: str
    spaced: bool


_TOKEN = re.compile(
    r"(?P<text>\\text ?\{[^{}\\]*\})"
    r"|(?P<environment>\\(?:begin|end) ?\{ ?[A-Za-z]+ ?\})"
    r"|(?P<command>\\[A-Za-z]+|\\[{}%|])"
    r"|(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
    r"|(?P<letters>[A-Za-z]+)"
    r"|(?P<sign>[-+*/^_(){}\[\],;:|%=<>!'&])"
)


def tokenise(text: str) -> list[Token]:
    """The tokens of a tidied text. Raises GrammarError at the first character that begins none."""
    if len(text) > LONGEST_EXPRESSION:
        raise GrammarError("too long")
    tokens: list[Token] = []
    position, spaced = 0, False
    while position < len(text):
        if text[position] == " ":
            position, spaced = position + 1, True
            continue
        match = _TOKEN.match(text, position)
        if match is None or len(tokens) == MOST_TOKENS:
            raise GrammarError(f"no token at {position}")
        kind, token = match.lastgroup or "", match[0]
        if kind == "number" and len(token) > MOST_DIGITS:
            raise GrammarError("too many digits")
        if kind == "text":
            token = token[token.index("{") + 1 : -1].strip()
            if token in FUNCTIONS:
                kind, token = "command", f"\\{token}"
            elif token in ("e", "i"):
                kind = "letters"
        elif kind == "letters" and token in NAMES:
            kind, token = "command", f"\\{token}"
        elif kind == "environment":
            token = token.replace(" ", "")
        tokens.append(Token(kind, token, spaced))
        position, spaced = match.end(), False
    return tokens
