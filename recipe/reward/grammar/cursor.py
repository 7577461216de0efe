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
Read = TypeVar("Read")


class Cursor:
    """``depth`` counts the brackets that are open; above DEEPEST the text is refused."""

    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def peek(self, ahead: int = 0) -> Token:
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
        if not self.at(*texts):
            return False
        self.position += 1
        return True

    def expect(self, text: str) -> None:
        if not self.take(text):
            raise GrammarError(f"expected {text!r}")

    def enter(self) -> None:
        self.depth += 1
        if self.depth > DEEPEST:
            raise GrammarError("too deep")

    def enclosed(self, inside: Callable[[], Read], closing: str) -> Read:
        """What is read up to a bracket that closes what was just opened."""
        self.enter()
        read = inside()
        self.expect(closing)
        self.depth -= 1
        return read

    def replace(self, rest: Token) -> None:
        """Puts what is left of a token in its place, without changing the list that others may hold."""
        self.tokens = [*self.tokens]
        self.tokens[self.position] = rest

    def number(self) -> str:
        token = self.next()
        if token.kind != "number":
            raise GrammarError("expected a number")
        return token.text

    def fraction(self) -> Fraction:
        return Fraction(self.number())
