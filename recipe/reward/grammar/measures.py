# SPDX-License-Identifier: Apache-2.0
r"""Single values: an expression with what may stand beside it.

::

    measure = [words] sum ["\over" sum] ["%" | "\%" | words | "'" | "''"] [("\approx" | "=") decimal]
    decimal = ["-"] number ["%" | "\%"] [words]           the same value, as a decimal
    ratio   = sum ":" sum {":" sum}                       a time of day where it could be one
    words   = {word | "\text{…}"} with "/" and "^" between units
"""

from __future__ import annotations

from fractions import Fraction

from recipe.reward.grammar.expressions import LONGEST_PRODUCT, Expressions
from recipe.reward.grammar.normalise import normalise
from recipe.reward.grammar.tokens import GrammarError, Token
from recipe.reward.grammar.units import MULTIPLIERS, SHORT_WORDS, UNITS, WordsError, unit_of
from recipe.reward.grammar.values import (
    ExprNode,
    Measure,
    Num,
    Op,
    Ratio,
    StatedDecimal,
    Value,
    literal_value,
    symbols,
    word_value,
)

_LARGEST_HOUR, _LARGEST_MINUTE = 24, 59
_ENDS = ("", ",", ";", ")", "]", "\\}", "\\and", "\\or", "&", "\\newrow", "\\cup")


class Measures(Expressions):
    """Reads one value with its unit."""

    def begins_factor(self, token: Token) -> bool:
        return super().begins_factor(token) and not self.is_short_word(token)

    def is_short_word(self, token: Token) -> bool:
        """Whether this is a word such as "men" that ends the measure."""
        return (
            token.kind == "letters"
            and token.text.casefold() in SHORT_WORDS
            and token.spaced
            and self.peek(1).text in _ENDS
        )

    def is_word(self, token: Token) -> bool:
        if token.kind == "letters":
            return (
                len(token.text) > LONGEST_PRODUCT
                or (len(token.text) > 1 and token.text.casefold() in UNITS)
                or token.text in ("USD", "Rs")
                or self.is_short_word(token)
            )
        return token.kind == "text"

    def measure(self) -> Value:
        """A value, words alone, or a ratio."""
        prefix = self.words() if self.is_word(self.peek()) else []
        if prefix and self.peek().text in _ENDS:
            return word_value(normalise(" ".join(prefix)))
        if prefix and not (self.peek().kind == "number" or self.at("-", "\\frac", ":")):
            raise GrammarError("words before an expression")
        if prefix:
            self.take(":")
        node = self.top_sum()
        if not prefix and self.at(":"):
            return self.ratio(node)
        measure = self.with_unit(node, prefix)
        if self.at("(") and self.peek(1).text == "\\approx":
            self.position += 2
            return self.enclosed(lambda: self.with_decimal(measure, exact=False), ")")
        if self.take("\\approx"):
            return self.with_decimal(measure, exact=False)
        return measure

    def top_sum(self) -> ExprNode:
        """A sum that is not within brackets; ``\\over`` divides all before it by all behind it."""
        self.degrees = False
        node = self.sum()
        if self.take("\\over"):
            return Op("/", (node, self.sum()))
        return node

    def with_unit(self, node: ExprNode, prefix: list[str]) -> Measure:
        """The expression with its percent sign or unit; ``prefix`` holds the words that stand before it."""
        if self.take("%", "\\%"):
            if prefix:
                raise GrammarError("words before a percentage")
            return Measure(node, literal_value(node), percent=True)
        words = ["degree"] if self.degrees else []
        if self.take("'"):
            words = ["feet"]
            if self.take("'"):
                words = ["inches"]
        if not words or self.degrees:
            words += self.words()
        words = [*prefix, *words]
        if words and words[0] in MULTIPLIERS and not prefix:
            literal = literal_value(node)
            if literal is None:
                raise GrammarError("a multiple of no number")
            node, words = Num(literal * MULTIPLIERS[words[0]]), words[1:]
        try:
            unit = unit_of(words)
        except WordsError as error:
            raise GrammarError(f"words beside a number: {error}") from None
        if unit == "percent":
            return Measure(node, literal_value(node), percent=True)
        return Measure(node, literal_value(node), unit=unit)

    def words(self) -> list[str]:
        """The words that stand here, with signs between units."""
        words: list[str] = []
        while True:
            token = self.peek()
            if self.is_word(token) or (words and token.kind == "letters"):
                self.next()
                words += _split(token.text)
            elif words and token.text == "^" and self.peek(1).kind in ("number", "sign"):
                self.next()
                braced = self.take("{")
                words.append(self.number())
                if braced:
                    self.expect("}")
            elif words and token.text == "/" and self.peek(1).kind in ("text", "letters"):
                self.next()
                words += ["/", *_split(self.next().text)]
            else:
                return words

    def with_decimal(self, measure: Measure, exact: bool) -> Measure:
        """The measure with the decimal that stands behind it; ``exact``: behind an equals sign."""
        sign = -1 if self.take("-") else 1
        token = self.next()
        if token.kind != "number":
            raise GrammarError("no decimal behind a value")
        value = sign * Fraction(token.text)
        step = Fraction(1, 10 ** len(token.text.partition(".")[2]))
        if self.take("%", "\\%") or (self.is_word(self.peek()) and self.peek().text.strip() == "percent"):
            value, step = value / 100, step / 100
        self.degrees = False
        decimal = self.with_unit(Num(value), [])
        if decimal.percent or (decimal.unit and measure.unit and decimal.unit != measure.unit):
            raise GrammarError("another unit behind a value")
        if symbols(measure.node):
            raise GrammarError("a decimal behind a function")
        unit = measure.unit or decimal.unit
        return Measure(measure.node, measure.literal, measure.percent, unit, StatedDecimal(value, step, exact))

    def ratio(self, first: ExprNode) -> Ratio:
        """A ratio whose first part was read."""
        start = self.position - 1
        parts = [first]
        while self.take(":"):
            parts.append(self.sum())
        clock = len(parts) <= 3 and all(
            isinstance(part, Num) and part.value.denominator == 1 and 0 <= part.value <= _LARGEST_MINUTE
            for part in parts
        )
        clock = clock and parts[0].value <= _LARGEST_HOUR and all(  # type: ignore[union-attr]
            token.text == ":" or len(token.text) == 2 for token in self.tokens[start + 1 : self.position]
        )  # fmt: skip
        half_of_day = ""
        if self.is_word(self.peek()):
            half_of_day = " ".join(self.words())
            if not clock or half_of_day not in ("am", "pm"):
                raise GrammarError("words behind a ratio")
        return Ratio(tuple(parts), clock, half_of_day)


def _split(text: str) -> list[str]:
    """The words of a text in lower case; "/" is a word of its own, "^" parts a unit from its power."""
    for sign in ("/", "^"):
        text = text.replace(sign, f" {sign} " if sign == "/" else " ")
    return [word.strip(".-:") for word in text.casefold().split() if word.strip(".-:")]
