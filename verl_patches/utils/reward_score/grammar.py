# SPDX-License-Identifier: Apache-2.0
r"""Tier 2: a closed grammar of answers, read into typed values. Nothing is evaluated while reading.

::

    answer   = [name "="] list                          a name is a letter, with or without a subscript
    list     = union {"," union}                        several: no order, like a set
    union    = item {"\cup" item}
    item     = group | "\{" [union {"," union}] "\}" | measure
    group    = ("(" | "[") union "," union {"," union} (")" | "]")      a tuple or an interval
    measure  = sum ["%" | "\%" | "\circ" | unit ["^" digits]]
    sum      = product {("+" | "-" | "\pm") product}
    product  = signed {["*" | "\cdot" | "/"] signed}    nothing between: a product, but never before a number
    signed   = ("+" | "-") signed | power
    power    = atom ["^" exponent]                      an exponent is one digit, one letter, "\pi" or in braces
    atom     = number | mixed | name | "\pi" | "\infty" | "(" sum ")" | "{" sum "}" | "|" sum "|"
             | "\frac" part part | ("\sqrt" | "sqrt") ["[" number "]"] part | number "_" base
    mixed    = digits "\frac" part part | digits " " digits "/" digits
    text     = words and "\text{…}" only

Over 400 lines, because it is one grammar and its one parser.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from verl_patches.utils.reward_score.normalise import join_lists, normalise, tidy
from verl_patches.utils.reward_score.number import LONGEST_NUMBER, parse_number
from verl_patches.utils.reward_score.tokens import GrammarError, Token, tokenise
from verl_patches.utils.reward_score.units import UNITS
from verl_patches.utils.reward_score.values import (
    Based,
    Collection,
    Group,
    Measure,
    Named,
    Node,
    Num,
    Op,
    Symbol,
    Text,
    Value,
    literal_value,
    ratio_value,
)

#: Deepest nesting of brackets, fractions, roots and exponents; most items of a list or group.
DEEPEST = 24
MOST_ITEMS = 16
MOST_ROOT = 100

_NUMBER_IN_TEXT = re.compile(r"\\text ?\{ ?([-+0-9./]+) ?\}")


@lru_cache(maxsize=16384)
def read(answer: str) -> Value | None:
    """The value of an answer (within LONGEST_ANSWER), or None when it is outside the grammar or above its budget."""
    text = _NUMBER_IN_TEXT.sub(r"\1", tidy(answer))
    if len(text) <= LONGEST_NUMBER and (number := parse_number(text)) is not None:
        worked_out = number.value.denominator > 1 or not ("/" in text or "\\frac" in text)
        return Measure(Num(number.value), number.value if worked_out else None, percent=number.percent)
    try:
        tokens = tokenise(join_lists(text))
        if not tokens:
            return None
        if _is_text(tokens):
            return Text(normalise(answer))
        return _Parser(tokens).answer()
    except (GrammarError, ZeroDivisionError):
        return None


def _is_text(tokens: list[Token]) -> bool:
    """Whether these are words: text commands, and runs of letters that are too long to be a product of variables."""
    return all(token.kind in ("text", "letters") or token.text == "," for token in tokens) and any(
        token.kind == "text" or len(token.text) > 3 for token in tokens
    )


class _Parser:
    def __init__(self, tokens: list[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.depth = 0

    def answer(self) -> Value:
        name = self.assignment()
        items, plus_minus = self.items(), self.plus_minus_used
        if self.position < len(self.tokens):
            raise GrammarError("text after the answer")
        value: Value = items[0] if len(items) == 1 else Collection(",", tuple(items))
        if plus_minus:
            value = self.both_signs(value)
        return Named(name, value) if name else value

    # "1 \pm x" is read once with each sign: `sign` is the sign that \pm stands for.
    plus_minus_used = False
    sign = 1

    def both_signs(self, value: Value) -> Value:
        if self.sign < 0:
            return value
        if not isinstance(value, Measure):
            raise GrammarError("\\pm within a list")
        other = _Parser(self.tokens)
        other.sign = -1
        twin = other.answer()
        return Collection(",", (value, twin.value if isinstance(twin, Named) else twin))

    def assignment(self) -> str:
        start = self.position
        if self.peek().kind == "letters" and len(self.peek().text) == 1:
            name = self.name()
            if self.take("="):
                return name
        self.position = start
        return ""

    def items(self) -> list[Value]:
        items = [self.union()]
        while self.take(","):
            if len(items) == MOST_ITEMS:
                raise GrammarError("too many items")
            items.append(self.union())
        return items

    def union(self) -> Value:
        parts = [self.item()]
        while self.take("\\cup"):
            if len(parts) == MOST_ITEMS:
                raise GrammarError("too many items")
            parts.append(self.item())
        return parts[0] if len(parts) == 1 else Collection("u", tuple(parts))

    def item(self) -> Value:
        if self.take("\\{"):
            self.enter()
            items = [] if self.peek().text == "\\}" else self.items()
            self.expect("\\}")
            self.depth -= 1
            return Collection(",", tuple(items))
        start = self.position
        if self.peek().text in ("(", "[") and self.holds_comma():
            opening = self.next().text
            self.enter()
            items = self.items()
            closing = self.next().text
            self.depth -= 1
            if closing not in (")", "]"):
                raise GrammarError("unclosed group")
            return Group(opening + closing, tuple(items))
        self.position = start
        return self.measure()

    def holds_comma(self) -> bool:
        """Whether the bracket here has a comma of its own; decides between a group and a factor."""
        depth = 0
        for token in self.tokens[self.position :]:
            if token.text in ("(", "[", "\\{", "{"):
                depth += 1
            elif token.text in (")", "]", "\\}", "}"):
                depth -= 1
                if depth == 0:
                    return False
            elif token.text == "," and depth == 1:
                return True
        return False

    def measure(self) -> Value:
        if self.peek().kind == "number" and self.peek(1).text == "_":
            digits = self.next().text
            self.next()
            base = self.braced_number() if self.take("{") else self.next().text
            return Based(digits.lstrip("0"), base)
        if self.peek().kind == "text":
            return Text(normalise(self.next().text))
        node = self.sum()
        if self.take("%") or self.take("\\%"):
            return Measure(node, literal_value(node), percent=True)
        if self.take("\\circ"):
            return Measure(node, literal_value(node), unit="degree")
        unit = self.unit()
        percent = unit == "percent"
        return Measure(node, literal_value(node), percent, "" if percent or unit.startswith("unit") else unit)

    def unit(self) -> str:
        if self.peek().kind not in ("text", "letters"):
            return ""
        words = []
        while self.peek().kind in ("text", "letters"):
            words.extend(self.next().text.casefold().rstrip(".").split())
        power = ""
        if self.take("^"):
            power = self.braced_number() if self.take("{") else self.next().text
        unit = " ".join(UNITS.get(word, "?") if word not in ("per", "a") else "per" for word in words)
        if "?" in unit or (power and not power.isdigit()):
            raise GrammarError("unknown unit")
        return unit + power

    def sum(self) -> Node:
        node = self.product()
        terms = [node]
        while self.peek().text in ("+", "-", "\\pm"):
            sign = self.next().text
            term = self.product()
            if sign == "\\pm":
                self.plus_minus_used = True
                sign = "-" if self.sign < 0 else "+"
            terms.append(Op("neg", (term,)) if sign == "-" else term)
        return node if len(terms) == 1 else Op("+", tuple(terms))

    def product(self) -> Node:
        factors = [self.signed()]
        while True:
            token = self.peek()
            if token.text in ("*", "\\cdot"):
                self.next()
                factors.append(self.signed())
            elif token.text == "/":
                self.next()
                factors = [Op("/", (_product(factors), self.signed()))]
            elif self.begins_factor(token):
                factors.append(self.power())
            else:
                return _product(factors)

    def begins_factor(self, token: Token) -> bool:
        if token.kind == "letters":
            return (len(token.text) <= 3 or token.text == "sqrt") and not self.is_unit(token)
        return token.text in ("(", "{", "\\frac", "\\sqrt", "\\pi", "\\infty") or token.text in _GREEK

    def is_unit(self, token: Token) -> bool:
        """Two letters or more that are a unit and end the measure: "5 cm" is a length, and "3xy" a product."""
        after = self.peek(1)
        return len(token.text) > 1 and token.text.casefold() in UNITS and after.text in ("", ",", "^", ")", "]")

    def signed(self) -> Node:
        if self.peek().text in ("+", "-", "\\pm"):
            sign = self.next().text
            self.enter()
            node = self.signed()
            self.depth -= 1
            if sign == "\\pm":
                self.plus_minus_used = True
                sign = "-" if self.sign < 0 else "+"
            return Op("neg", (node,)) if sign == "-" else node
        return self.power()

    def power(self) -> Node:
        node = self.atom()
        if not self.take("^"):
            return node
        if self.take("{"):
            self.enter()
            exponent = self.sum()
            self.expect("}")
            self.depth -= 1
        elif self.peek().text == "(":
            exponent = self.atom()
        else:
            exponent = self.single(negative=True)
        if self.peek().text == "^":
            raise GrammarError("exponent of an exponent without braces")
        return Op("^", (node, exponent))

    def single(self, negative: bool = False) -> Node:
        """What LaTeX takes as an argument without braces: one digit, one letter or one command. A number of several
        digits, or with a sign where ``negative`` is set, is taken whole, as people mean it."""
        token = self.next()
        if negative and token.text == "-" and self.peek().kind == "number":
            return Op("neg", (Num(Fraction(self.next().text)),))
        if token.kind == "number":
            return Num(Fraction(token.text))
        if token.kind == "letters" and len(token.text) == 1:
            return Symbol(token.text)
        if token.text == "\\pi" or token.text in _GREEK:
            return Symbol(token.text)
        raise GrammarError("no argument")

    def part(self) -> Node:
        """An argument of \\frac or \\sqrt. "\\frac12" has two arguments in one token."""
        if self.take("{"):
            self.enter()
            node = self.sum()
            self.expect("}")
            self.depth -= 1
            return node
        token = self.peek()
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.tokens = [*self.tokens]
            self.tokens[self.position] = Token("number", token.text[1:], False)
            return Num(Fraction(token.text[0]))
        if token.kind == "letters" and len(token.text) > 1:
            self.tokens = [*self.tokens]
            self.tokens[self.position] = Token("letters", token.text[1:], False)
            return Symbol(token.text[0])
        return self.single()

    def atom(self) -> Node:
        token = self.peek()
        if token.kind == "number":
            self.next()
            return self.mixed(token)
        if token.kind == "letters" and token.text != "sqrt":
            return self.letters()
        self.next()
        if token.text in ("(", "{", "|"):
            self.enter()
            node = self.sum()
            self.expect({"(": ")", "{": "}", "|": "|"}[token.text])
            self.depth -= 1
            return Op("abs", (node,)) if token.text == "|" else node
        if token.text == "\\frac":
            return Op("/", (self.part(), self.part()))
        if token.text in ("\\sqrt", "sqrt"):
            degree = Fraction(2)
            if self.take("["):
                degree = Fraction(self.next_number())
                self.expect("]")
            if degree.denominator != 1 or not 2 <= degree <= MOST_ROOT:
                raise GrammarError("degree of a root")
            inside = self.atom() if self.peek().text == "(" else self.part()
            return Op("root", (Num(degree), inside))
        if token.text in ("\\pi", "\\infty") or token.text in _GREEK:
            return Symbol(token.text)
        raise GrammarError(f"unexpected {token.text!r}")

    def mixed(self, token: Token) -> Node:
        whole = Fraction(token.text)
        after = self.peek()
        if token.text.isdigit() and after.text == "\\frac":
            self.next()
            ratio = Op("/", (self.part(), self.part()))
            if self.peek().text == "^":
                raise GrammarError("exponent behind a mixed number")
            part = ratio_value(ratio)
            return Op("*", (Num(whole), ratio)) if part is None else Num(whole + part)
        if after.kind != "number":
            return Num(whole)
        below = self.peek(2)
        digits = token.text.isdigit() and after.text.isdigit() and below.text.isdigit()
        if digits and after.spaced and self.peek(1).text == "/":
            self.position += 3
            return Num(whole + Fraction(int(after.text), int(below.text)))
        raise GrammarError("two numbers side by side")

    def letters(self) -> Node:
        """One variable, or a product of up to three, the last of which may have a subscript."""
        text = self.peek().text
        if len(text) > 3 or text in _FUNCTIONS:
            raise GrammarError("a word within an expression")
        if text == "pi":
            self.next()
            return Symbol("\\pi")
        if len(text) > 1:
            # An exponent or a subscript behind the run belongs to its last letter.
            self.tokens = [*self.tokens]
            self.tokens[self.position] = Token("letters", text[1:], False)
            return Symbol(text[0])
        return Symbol(self.name())

    def name(self) -> str:
        name = self.next().text
        if self.take("_"):
            name += "_" + (self.braced_word() if self.take("{") else self.next().text)
        return name

    def braced_word(self) -> str:
        token = self.next()
        if token.kind not in ("number", "letters"):
            raise GrammarError("subscript")
        self.expect("}")
        return token.text

    def braced_number(self) -> str:
        text = self.next_number()
        self.expect("}")
        return text

    def next_number(self) -> str:
        token = self.next()
        if token.kind != "number":
            raise GrammarError("expected a number")
        return token.text

    def peek(self, ahead: int = 0) -> Token:
        place = self.position + ahead
        return self.tokens[place] if place < len(self.tokens) else _END

    def next(self) -> Token:
        token = self.peek()
        if token is _END:
            raise GrammarError("unexpected end")
        self.position += 1
        return token

    def take(self, text: str) -> bool:
        if self.peek().text != text or self.peek().kind == "text":
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


_END = Token("end", "", False)
_GREEK = frozenset(
    ("\\alpha", "\\beta", "\\gamma", "\\delta", "\\theta", "\\lambda", "\\mu", "\\phi", "\\omega")
)  # fmt: skip
_FUNCTIONS = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "log", "ln", "exp", "max", "min", "gcd", "mod"))


def _product(factors: list[Node]) -> Node:
    return factors[0] if len(factors) == 1 else Op("*", tuple(factors))
