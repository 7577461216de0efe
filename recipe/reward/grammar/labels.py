# SPDX-License-Identifier: Apache-2.0
r"""What may stand before "=" and a value without being part of the answer.

A label is ``x``, ``AB``, ``P(A)``, ``a+b``, ``\text{Area}`` and the like. It is recognised by the kinds of its tokens;
anything else before "=" makes an equation.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from recipe.reward.grammar.expressions import Expressions, is_function
from recipe.reward.grammar.names import LETTERS, MARKS
from recipe.reward.grammar.tokens import GrammarError, Token
from recipe.reward.grammar.values import ExprNode

LONGEST_LABEL = 30

# L: letters, W: words, F: a function, M: a mark, N: a number, D: a ratio of names, &: a sign between letters.
_LABEL = re.compile(
    r"M*[LW][LWM]*|F?M*[LF]\([LWNMF+\-*,&=]*\)|F[LM]+|L(?:[+&]L)+|L(?::L)+|\|M*L\||\[L\]|\(L(?:,L)*\)|M|D"
)


class Label(NamedTuple):
    """``end`` is the position behind the "="; ``node`` is the label as an expression, where it can be read as one."""

    name: str
    end: int
    node: ExprNode | None


def label_before_equals(tokens: list[Token], start: int) -> Label | None:
    """The label that stands at a position with its "=", or None."""
    depth, end = 0, start
    for end in range(start, min(len(tokens), start + LONGEST_LABEL)):
        token = tokens[end]
        if token.kind != "text":
            if token.text in ("(", "{", "["):
                depth += 1
            elif token.text in (")", "}", "]"):
                depth -= 1
            elif token.text == "=" and depth == 0:
                break
            elif token.text in (",", ";", "\\and", "\\or", "<", ">", "\\le", "\\ge") and depth == 0:
                return None
    else:
        return None
    label = tokens[start:end]
    if not label or not _LABEL.fullmatch(_shape(label)):
        return None
    name = "".join(token.text for token in label if token.text not in ("{", "}"))
    return Label(name, end + 1, _expression(label))


def _expression(tokens: list[Token]) -> ExprNode | None:
    """The tokens read as one expression, or None where they are none."""
    parser = Expressions(tokens)
    try:
        node = parser.sum()
    except GrammarError:
        return None
    return node if parser.position == len(tokens) else None


def _shape(tokens: list[Token]) -> str:
    """One character for each token, for ``_LABEL``; subscripts, primes and the -1 of an inverse are left out."""
    shape: list[str] = []
    place = 0
    while place < len(tokens):
        token = tokens[place]
        place += 1
        if token.text == "_" and token.kind == "sign":
            place = _behind_group(tokens, place)
        elif token.text == "'" and shape:
            continue
        elif token.text == "^" and [inverse.text for inverse in tokens[place : place + 4]] == ["{", "-", "1", "}"]:
            place += 4
        elif token.kind == "text":
            shape.append("W" if len(token.text) > 1 else "L")
        elif token.kind == "letters" or token.text in LETTERS or token.text == "\\pi":
            shape.append("L")
        elif token.text in MARKS:
            shape.append("M")
            if place < len(tokens) and tokens[place].text == "{":
                place = _behind_group(tokens, place)
                shape.append("L")
        elif is_function(token) or token.text in ("\\max", "\\min"):
            shape.append("F")
        elif token.kind == "number":
            shape.append("N")
        elif token.text in ("\\lvert", "\\rvert"):
            shape.append("|")
        elif token.text in ("\\cup", "\\cap", "\\mid", "\\le", "\\ge", "<", ">"):
            shape.append("&")
        elif token.text == "\\frac" and _is_ratio_of_names(tokens[place : place + 6]):
            place += 6
            shape.append("D")
        else:
            shape.append(token.text if len(token.text) == 1 else "?")
    return "".join(shape)


def _behind_group(tokens: list[Token], place: int) -> int:
    """The place behind one token, or behind a group in braces."""
    if place >= len(tokens) or tokens[place].text != "{":
        return place + 1
    depth = 0
    for end in range(place, len(tokens)):
        depth += (tokens[end].text == "{") - (tokens[end].text == "}")
        if depth == 0:
            return end + 1
    return len(tokens)


def _is_ratio_of_names(tokens: list[Token]) -> bool:
    """Whether this is "{dy}{dx}", or "{AB}{CD}" of capital letters."""
    texts = [token.text for token in tokens]
    if len(texts) < 6 or (texts[0], texts[2], texts[3], texts[5]) != ("{", "}", "{", "}"):
        return False
    names = (texts[1], texts[4])
    return all(len(name) == 2 and name.isalpha() and (name.isupper() or name[0] == "d") for name in names)
