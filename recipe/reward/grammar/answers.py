# SPDX-License-Identifier: Apache-2.0
r"""The grammar of a whole answer: lists, sets, intervals, relations. ``read`` is tier 2's door.

::

    answer   = list
    list     = named {("," | ";" | "and" | "or") named}     no order; "," and ";" not both
    named    = [label "="] union | symbol "\in" union       a label is a name, a function value or a sum of letters
    union    = item {("\cup" | "\cap" | "\setminus") item}
    item     = group | set | matrix | "\infty" | "\R" | "\emptyset" | number "_" base | relation | ratio | measure
    group    = ("(" | "[" | "\langle") list (")" | "]" | "\rangle")     a tuple or an interval
    set      = "\{" [list] "\}" | "\{" name ["\in \R"] ("|" | ":") list "\}" | "{" list "}"
    relation = sum sign sum {sign sum}                      a sign is "=", "\ne", "<", ">", "\le" or "\ge"

``measure`` and ``ratio`` are defined in ``measures.py``, ``sum`` in ``expressions.py``, ``matrix`` in ``matrices.py``.
"""

from __future__ import annotations

import re
from functools import lru_cache

from recipe.reward.grammar.bases import read_based
from recipe.reward.grammar.labels import Label, label_before_equals
from recipe.reward.grammar.matrices import Matrices
from recipe.reward.grammar.normalise import join_lists, normalise, tidy
from recipe.reward.grammar.number import LONGEST_NUMBER, parse_number
from recipe.reward.grammar.signs import both_signs
from recipe.reward.grammar.tokens import GrammarError, Token, tokenise
from recipe.reward.grammar.values import (
    EMPTY,
    REAL_LINE,
    Collection,
    ExprNode,
    Group,
    Infinity,
    Measure,
    NamedValue,
    Num,
    Relation,
    Symbol,
    Text,
    Value,
    symbols,
    word_value,
)

#: Most items of a list or group.
MOST_ITEMS = 32

_NUMBER_IN_TEXT = re.compile(r"\\text ?\{ ?([-+0-9./]+) ?\}")
_ONE_TEXT = re.compile(r"\\text ?\{([^{}\\]*)\}")
#: Longest spelling of one letter, such as "(\\text{H})".
_LONGEST_LETTER = 16
_SEPARATORS = (",", ";", "\\and", "\\or")
_RELATIONS = ("=", "\\ne", "<", ">", "\\le", "\\ge")
_SETS = {"\\cup": "u", "\\cap": "n", "\\setminus": "\\"}
_OPENING = {"(": ")", "[": "]", "\\langle": "\\rangle"}


@lru_cache(maxsize=16384)
def read(answer: str) -> Value | None:
    """The value of an answer (within LONGEST_ANSWER), or None when it is outside the grammar or above its budget."""
    text = tidy(answer)
    if "\\text" in text:
        text = _NUMBER_IN_TEXT.sub(r" \1 ", text).strip()
    if len(text) <= LONGEST_NUMBER and (number := parse_number(text)) is not None:
        # "6/2" is a division still to be worked out, and so no literal number.
        worked_out = number.value.denominator > 1 or not ("/" in text or "\\frac" in text)
        return Measure(Num(number.value), number.value if worked_out else None, percent=number.percent)
    try:
        return _read(text)
    except (GrammarError, ZeroDivisionError):
        return None


def _read(text: str) -> Value:
    if len(text) <= _LONGEST_LETTER and len(key := normalise(text)) == 1 and key.isascii() and key.isalpha():
        return word_value(key)
    words = _ONE_TEXT.fullmatch(text)
    if words:
        text = words[1].strip()
    if text.startswith("{") and text.endswith("}") and "," not in text and _is_enclosed(text):
        text = text[1:-1].strip()
    based = read_based(text)
    if based is not None:
        return based
    tokens = tokenise(join_lists(text))
    if not tokens:
        raise GrammarError("nothing")
    if _is_text(tokens):
        return _words(text, tokens)
    return Answers(tokens).answer()


def _is_enclosed(text: str) -> bool:
    """Whether the brace that a text begins with is closed at its end."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return place == len(text) - 1
    return False


def _is_text(tokens: list[Token]) -> bool:
    """Whether these are words: text commands, and runs of letters that are too long to be a product of variables."""
    return all(token.kind in ("text", "letters") or token.text in _SEPARATORS for token in tokens) and any(
        token.kind == "text" or len(token.text) > 3 for token in tokens if token.kind != "command"
    )


def _words(text: str, tokens: list[Token]) -> Value:
    """Words, or a list of words or letters."""
    key = normalise(text)
    if key in ("all real numbers", "all reals", "all real"):
        return REAL_LINE
    if key in ("no solution", "no solutions", "no real solutions", "no real solution", "empty set", "the empty set"):
        return EMPTY
    parts: list[list[str]] = [[]]
    for token in tokens:
        if token.text not in _SEPARATORS:
            parts[-1].append(token.text)
        elif parts[-1]:
            parts.append([])
    keys = [normalise(" ".join(part)) for part in parts if part]
    if len(keys) == 1:
        return Text(key)
    if len(keys) > MOST_ITEMS:
        raise GrammarError("too many items")
    return Collection(",", tuple(word_value(key) for key in keys))


class Answers(Matrices):
    """Reads a whole answer. Each method reads the part of the grammar that it is named after."""

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.has_equals = any(token.text == "=" for token in tokens)

    def answer(self) -> Value:
        """The value. Raises GrammarError where the text goes on behind it."""
        value = self.listed()
        if self.position < len(self.tokens):
            raise GrammarError("text after the answer")
        return value

    def listed(self) -> Value:
        items, kind = self.items()
        return items[0] if len(items) == 1 else Collection(kind, tuple(items))

    def items(self) -> tuple[list[Value], str]:
        """The items of a list, and the kind of ``Collection`` that its separators make it."""
        items = self.named()
        separators: set[str] = set()
        while self.at(*_SEPARATORS):
            while self.at(*_SEPARATORS):
                separators.add(self.next().text)
            items += self.named()
            if len(items) > MOST_ITEMS:
                raise GrammarError("too many items")
        if {",", ";"} <= separators:
            raise GrammarError("two separators")
        return items, "or" if "\\or" in separators else "and" if "\\and" in separators else ","

    def named(self) -> list[Value]:
        """One value with its label, or the two values of a ``\\pm``."""
        start = self.position
        label = label_before_equals(self.tokens, start) if self.has_equals else None
        if label is None:
            return both_signs(self.union())
        self.position = label.end
        value = self.union()
        if self.repeats(label, value) or self.at(*_RELATIONS):
            self.position = start
            return both_signs(self.union())
        if isinstance(value, Relation):
            raise GrammarError("a relation behind a name")
        values = both_signs(value)
        named = values[0] if len(values) == 1 else Collection(",", tuple(values))
        return [NamedValue(label.name, named, label.node)]

    def repeats(self, label: Label, value: Value) -> bool:
        """Whether the value has the name in it: then this is an equation."""
        named = label.node.name if isinstance(label.node, Symbol) else None
        return isinstance(value, Measure) and named in symbols(value.node)

    def union(self) -> Value:
        value = self.item()
        count = 1
        while self.at(*_SETS):
            kind = _SETS[self.next().text]
            if count == MOST_ITEMS:
                raise GrammarError("too many items")
            count += 1
            operand = self.item()
            joined = isinstance(value, Collection) and value.kind == kind and kind != "\\"
            value = Collection(kind, (*value.items, operand) if joined else (value, operand))  # type: ignore[union-attr]
        return value

    def item(self) -> Value:
        if self.peek().kind not in ("number", "letters") and (value := self.bracketed_item()) is not None:
            return value
        value = self.measure()
        if isinstance(value, Measure):
            if self.at(*_RELATIONS):
                return self.related(value)
            if isinstance(value.node, Symbol) and self.take("\\in"):
                return NamedValue(value.node.name, self.union(), value.node)
        return value

    def bracketed_item(self) -> Value | None:
        """An item that begins with a bracket or is a sign of its own, or None where a measure begins."""
        if self.at("\\{"):
            return self.set()
        if self.begins_matrix():
            return self.matrix()
        if self.at("{") and self.holds_comma():
            self.next()
            return Collection(",", tuple(self.enclosed(self.items, "}")[0]))
        if self.at("(", "[", "\\langle") and self.holds_comma():
            return self.group()
        if self.take("\\emptyset"):
            return EMPTY
        if self.at("\\R", "\\mathbb") and (line := self.real_line()) is not None:
            return line
        sign = -1 if self.at("-") else 1
        if self.peek(self.at("+", "-")).text == "\\infty":
            self.position += 1 + self.at("+", "-")
            return self.chain(None) if self.at(*_RELATIONS) else Infinity(sign)
        return None

    def real_line(self) -> Value | None:
        start = self.position
        if self.take("\\R"):
            return REAL_LINE
        self.next()
        if self.marked("\\mathbb") == "\\R":
            return REAL_LINE
        self.position = start
        return None

    def related(self, first: Measure) -> Value:
        """An expression that stands before a sign of relation: with its own decimal behind "=", or in a relation."""
        number = self.peek(2 if self.peek(1).text == "-" else 1)
        if self.at("=") and not symbols(first.node) and number.kind == "number":
            self.next()
            if "." not in number.text and self.peek(1).text not in ("%", "\\%"):
                raise GrammarError("two values")
            return self.with_decimal(first, exact=True)
        if first.unit or first.percent or first.decimal:
            raise GrammarError("a relation with a unit")
        return self.chain(first.node)

    def chain(self, first: ExprNode | None) -> Relation:
        """A chain of relations whose first side was read; None is infinite, which at either end bounds nothing."""
        sides, signs = [first], []
        while self.at(*_RELATIONS):
            signs.append(self.next().text)
            sides.append(self.side())
        if sides[0] is None:
            sides, signs = sides[1:], signs[1:]
        if sides and sides[-1] is None:
            sides, signs = sides[:-1], signs[:-1]
        finite = [side for side in sides if side is not None]
        if len(finite) < 2 or len(finite) < len(sides):
            raise GrammarError("no relation")
        if "=" in signs and not any(symbols(side) for side in finite):
            raise GrammarError("an equation between numbers")
        return Relation(tuple(finite), tuple(signs))

    def side(self) -> ExprNode | None:
        """One side of a relation; None where it is infinite."""
        if self.peek(self.at("+", "-")).text == "\\infty":
            self.position += 1 + self.at("+", "-")
            return None
        return self.top_sum()

    def set(self) -> Value:
        self.next()
        self.enter()
        if self.take("\\}"):
            self.depth -= 1
            return EMPTY
        builder = self.peek().kind == "letters" and len(self.peek().text) == 1
        if builder and self.peek(1).text in ("|", ":", "\\in"):
            name = self.next().text
            if self.take("\\in") and self.real_line() is None:
                raise GrammarError("a set of other than real numbers")
            if not self.take("|", ":"):
                raise GrammarError("no condition")
            items, kind = self.items()
            conditions = Collection("or" if kind == "or" else "and", tuple(items))
            value: Value = NamedValue(name, items[0] if len(items) == 1 else conditions, Symbol(name))
        else:
            value = Collection(",", tuple(self.items()[0]))
        self.expect("\\}")
        self.depth -= 1
        return value

    def group(self) -> Value:
        opening = self.next().text
        self.enter()
        items, _ = self.items()
        closing = self.next().text
        self.depth -= 1
        if closing not in _OPENING.values() or (opening == "\\langle") != (closing == "\\rangle"):
            raise GrammarError("unclosed group")
        return Group("()" if opening == "\\langle" else opening + closing, tuple(items))

    def holds_comma(self) -> bool:
        """Whether a comma stands directly within the bracket here: then it is a group, and no factor."""
        depth = 0
        for token in self.tokens[self.position :]:
            if token.text in ("(", "[", "\\{", "{", "\\langle"):
                depth += 1
            elif token.text in (")", "]", "\\}", "}", "\\rangle"):
                depth -= 1
                if depth == 0:
                    return False
            elif token.text in (",", ";") and depth == 1:
                return True
        return False
