# SPDX-License-Identifier: Apache-2.0
"""A place in a list of tokens, with the steps that every part of the grammar takes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import TypeVar

from recipe.reward.grammar.tokens import GrammarError, Token

#: Deepest nesting of brackets, fractions, roots, exponents and functions.
DEEPEST = 24

END = Token("end", "", False)
Content = TypeVar("Content")


class Cursor:
    """``position`` is that of the next token; ``depth`` counts the open brackets, of which DEEPEST may be open."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def peek(self, ahead: int = 0) -> Token:
        """The token so many places behind the next one, or END."""
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else END

    def next(self) -> Token:
        token = self.peek()
        if token is END:
            raise GrammarError("unexpected end")
        self.position += 1
        return token

    def at(self, *texts: str) -> bool:
        """Whether the next token is one of these signs or commands."""
        token = self.peek()
        return token.text in texts and token.kind != "text"

    def take(self, *texts: str) -> bool:
        """Goes on behind the next token where it is one of these."""
        if not self.at(*texts):
            return False
        self.position += 1
        return True

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise GrammarError(f"expected {text!r}")

    def enter(self) -> None:
        """Counts a bracket that was opened."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise GrammarError("too deep")

    def enclosed(self, inside: Callable[[], Content], closing: str) -> Content:
        """What ``inside`` reads behind an opening bracket; the closing one must follow."""
        self.enter()
        content = inside()
        self.expect(closing)
        self.depth -= 1
        return content

    def replace(self, rest: Token) -> None:
        """Puts the rest of the next token in its place, in a copy: the list may be another cursor's too."""
        self.tokens = [*self.tokens]
        self.tokens[self.position] = rest

    def number(self) -> str:
        token = self.next()
        if token.kind != "number":
            raise GrammarError("expected a number")
        return token.text

    def fraction(self) -> Fraction:
        return Fraction(self.number())
