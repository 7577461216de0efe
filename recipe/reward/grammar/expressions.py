# SPDX-License-Identifier: Apache-2.0
r"""Expressions: the part of the grammar below signs of relation, commas and units.

::

    sum      = product {("+" | "-" | "\pm" | "\mp") product}
    product  = signed {["*" | "\cdot" | "/"] signed}    nothing between: a product, but no number behind one
    signed   = ("+" | "-" | "\pm" | "\mp") signed | power
    power    = atom ["!"] ["^" exponent]                an exponent is one digit, one letter, "\pi" or in braces
    atom     = number | mixed | name | "\pi" | bracketed | "\frac" part part | "\binom" part part
             | ("\sqrt" | "sqrt") ["[" number "]"] part | function
    mixed    = digits "\frac" part part | digits " " digits "/" digits      of a proper fraction
    bracketed = "(" sum ")" | "[" sum "]" | "{" sum [("\over" | "\choose") sum] "}" | "|" sum "|"
             | "\lfloor" sum "\rfloor" | "\lceil" sum "\rceil"
    function = "\sin" ["^" part] argument | "\log" ["_" part] ["^" part] argument
             | ("\max" | "\min") "(" sum {"," sum} ")"
    argument = bracketed | signed power {power}          without brackets: what stands side by side, up to a function
    name     = letter ["_" part] {"'"} | mark part       "ab" is a times b
"""

from __future__ import annotations

from fractions import Fraction

from recipe.reward.grammar.cursor import END, Cursor
from recipe.reward.grammar.names import FUNCTIONS, INVERSES, LETTERS, MARKS
from recipe.reward.grammar.tokens import MOST_DIGITS, GrammarError, Token
from recipe.reward.grammar.units import UNITS
from recipe.reward.grammar.values import ExprNode, Num, Op, Symbol, ratio_value

MOST_ROOT = 100
#: Longest run of letters that is a product of variables; a longer one is a word.
LONGEST_PRODUCT = 3

_CLOSING = {"(": ")", "{": "}", "[": "]", "|": "|", "\\lvert": "\\rvert", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil"}
_SHAPED = {"|": "abs", "\\lvert": "abs", "\\lfloor": "floor", "\\lceil": "ceil"}
_SIGNS = ("+", "-", "\\pm", "\\mp")
#: Signs that begin a factor, and signs behind which a number is a factor.
_FACTOR_SIGNS = frozenset(
    ("(", "{", "[", "\\frac", "\\binom", "\\sqrt", "\\pi", "\\max", "\\min", "\\lvert", "\\lfloor", "\\lceil")
)
_TEMPERATURES = ("C", "F")
_BEFORE_NUMBER = (")", "}", "]", "!")
_DEGREE = Op("/", (Symbol("\\pi"), Num(Fraction(180))))


class Expressions(Cursor):
    """Reads one expression. Each method reads the rule of the grammar that it is named after.

    ``degrees``: a degree sign stood in it, outside of a function. ``in_function`` and ``in_bars`` count the functions
    and absolute values around the position.
    """

    def __init__(self, tokens: list[Token]) -> None:
        super().__init__(tokens)
        self.degrees = False
        self.in_function = 0
        self.in_bars = 0

    def sum(self) -> ExprNode:
        terms = [self.product()]
        while self.at(*_SIGNS):
            terms.append(_signed(self.next().text, self.product()))
        return terms[0] if len(terms) == 1 else Op("+", tuple(terms))

    def product(self) -> ExprNode:
        factors = [self.signed()]
        while True:
            token = self.peek()
            if token.text in ("*", "\\cdot"):
                self.next()
                factors.append(self.signed())
            elif token.text == "/":
                self.next()
                factors = [Op("/", (product(factors), self.signed()))]
            elif self.begins_factor(token):
                factors.append(self.power())
            else:
                return product(factors)

    def begins_factor(self, token: Token) -> bool:
        """Whether a factor stands here without a sign before it."""
        if token.kind == "letters":
            return len(token.text) <= LONGEST_PRODUCT and not self.is_unit(token)
        if token.kind == "number":
            preceding = self.tokens[self.position - 1] if self.position else END
            return preceding.text in _BEFORE_NUMBER or (preceding.kind == "letters" and token.spaced)
        if token.kind == "text":
            return False
        if token.text == "|":
            return not self.in_bars
        if token.text == "(" and self.peek(1).text == "\\approx":
            return False
        return token.text in _FACTOR_SIGNS or token.text in LETTERS or token.text in MARKS or is_function(token)

    def is_unit(self, token: Token) -> bool:
        """Whether two letters or more are a unit at the end of a measure: "5 cm" is a length, "3xy" a product."""
        ends = self.peek(1).text in ("", ",", ";", "^", ")", "]", "\\and", "\\or", "\\approx")
        return len(token.text) > 1 and token.text.casefold() in UNITS and ends

    def signed(self) -> ExprNode:
        if not self.at(*_SIGNS):
            return self.power()
        sign = self.next().text
        self.enter()
        node = self.signed()
        self.depth -= 1
        return _signed(sign, node)

    def power(self) -> ExprNode:
        node = self.atom()
        while self.take("!"):
            if self.at("!"):
                raise GrammarError("double factorial")
            node = Op("!", (node,))
        if self.take("\\circ"):
            if self.in_function:
                return Op("*", (node, _DEGREE))
            self.degrees = True
            if self.peek().text in _TEMPERATURES:
                self.next()
            return node
        if not self.take("^"):
            return node
        node = Op("^", (node, self.exponent()))
        if self.take("!"):
            node = Op("!", (node,))
        return node

    def exponent(self) -> ExprNode:
        if self.take("{"):
            exponent = self.enclosed(self.sum, "}")
        elif self.at("("):
            exponent = self.atom()
        else:
            exponent = self.single(negative=True)
        if self.at("^"):
            raise GrammarError("exponent of an exponent without braces")
        return exponent

    def single(self, negative: bool = False) -> ExprNode:
        """An argument without braces, for which LaTeX takes one digit, one letter or one command.

        A number of several digits is taken whole, as people mean it; so is one with a sign where ``negative`` is set.
        """
        token = self.next()
        if negative and token.text == "-" and self.peek().kind == "number":
            return Op("neg", (Num(self.fraction()),))
        if token.kind == "number":
            return Num(Fraction(token.text))
        if token.kind == "letters" and len(token.text) == 1:
            return Symbol(token.text)
        if token.kind == "letters" and negative:
            self.position -= 1
            self.replace(Token("letters", token.text[1:], False))
            return Symbol(token.text[0])
        if token.text == "\\pi" or token.text in LETTERS:
            return Symbol(token.text)
        if token.text == "\\frac":
            return Op("/", (self.part(), self.part()))
        raise GrammarError("no argument")

    def part(self) -> ExprNode:
        """An argument of \\frac or \\sqrt. "\\frac12" has two arguments in one token."""
        if self.take("{"):
            return self.enclosed(self.inner_sum, "}")
        token = self.peek()
        if token.kind == "number" and len(token.text) > 1 and token.text.isdigit():
            self.replace(Token("number", token.text[1:], False))
            return Num(Fraction(token.text[0]))
        if token.kind == "letters" and len(token.text) > 1:
            self.replace(Token("letters", token.text[1:], False))
            return Symbol(token.text[0])
        if token.text in ("\\sqrt", "\\binom"):
            return self.atom()
        return self.single()

    def inner_sum(self) -> ExprNode:
        """A sum that stands in brackets of its own: bars in it are not those around it."""
        bars, self.in_bars = self.in_bars, 0
        node = self.sum()
        if self.take("\\over"):
            node = Op("/", (node, self.sum()))
        elif self.take("\\choose"):
            node = Op("binom", (node, self.sum()))
        self.in_bars = bars
        return node

    def atom(self) -> ExprNode:
        token = self.peek()
        if token.kind == "number":
            self.next()
            return self.mixed(token)
        if token.kind == "letters" or token.text in MARKS:
            return self.letters()
        self.next()
        if token.kind == "text":
            raise GrammarError("words in an expression")
        if token.text in _CLOSING:
            return self.bracketed(token.text)
        if token.text in ("\\frac", "\\binom"):
            return Op("/" if token.text == "\\frac" else "binom", (self.part(), self.part()))
        if token.text == "\\sqrt":
            return self.root()
        if token.text in ("\\max", "\\min"):
            return self.extreme(token.text[1:])
        if is_function(token):
            return self.function(token.text[1:])
        if token.text == "\\pi":
            return Symbol(token.text)
        if token.text in LETTERS:
            return Symbol(self.name(token.text))
        raise GrammarError(f"unexpected {token.text!r}")

    def bracketed(self, opening: str) -> ExprNode:
        if opening == "|":
            self.in_bars += 1
            node = self.enclosed(self.sum, "|")
            self.in_bars -= 1
        else:
            node = self.enclosed(self.inner_sum, _CLOSING[opening])
        return Op(_SHAPED[opening], (node,)) if opening in _SHAPED else node

    def root(self) -> ExprNode:
        degree = Fraction(2)
        if self.take("["):
            degree = self.fraction()
            self.expect("]")
        if degree.denominator != 1 or not 2 <= degree <= MOST_ROOT:
            raise GrammarError("degree of a root")
        return Op("root", (Num(degree), self.atom() if self.at("(") else self.part()))

    def extreme(self, kind: str) -> ExprNode:
        """The arguments of ``\\max`` or ``\\min``."""
        closing = "\\}" if self.at("\\{") else ")"
        if not self.take("\\{", "("):
            raise GrammarError("largest of what")
        return Op(kind, tuple(self.enclosed(self.several_sums, closing)))

    def several_sums(self) -> list[ExprNode]:
        parts = [self.inner_sum()]
        while self.take(","):
            parts.append(self.inner_sum())
        return parts

    def function(self, name: str) -> ExprNode:
        base: ExprNode = Num(Fraction(10))
        if name == "log" and self.take("_"):
            base = self.part() if self.at("{") else self.single()
        exponent: ExprNode | None = None
        if self.take("^"):
            exponent = self.exponent()
            if exponent == Op("neg", (Num(Fraction(1)),)):
                if name not in INVERSES:
                    raise GrammarError("inverse of a function")
                name, exponent = INVERSES[name], None
        self.in_function += 1
        node = _applied(name, self.argument(), base)
        self.in_function -= 1
        return node if exponent is None else Op("^", (node, exponent))

    def argument(self) -> ExprNode:
        """The argument of a function, in brackets or without."""
        if self.at("(", "[", "{", "\\lvert", "\\lfloor", "\\lceil"):
            argument = self.bracketed(self.next().text)
            return Op("!", (argument,)) if self.take("!") else argument
        self.enter()
        factors = [self.signed()]
        while self.begins_factor(self.peek()) and not is_function(self.peek()) and not self.at("(", "|", "\\lvert"):
            factors.append(self.power())
        self.depth -= 1
        if self.at("/"):
            raise GrammarError("a fraction behind a function without brackets")
        return product(factors)

    def mixed(self, token: Token) -> ExprNode:
        """A number that was read, with the fraction behind it where it is a mixed number."""
        following = self.peek()
        if token.text.isdigit() and following.text == "\\frac":
            self.next()
            ratio = Op("/", (self.part(), self.part()))
            part = ratio_value(ratio)
            if self.at("^"):
                raise GrammarError("exponent behind a mixed number")
            return Op("*", (Num(Fraction(token.text)), ratio)) if part is None else Num(_mixed(token.text, part))
        if following.kind != "number":
            return Num(self.repeating(token.text))
        above, below = following.text, self.peek(2).text
        digits = token.text.isdigit() and above.isdigit() and below.isdigit()
        if digits and following.spaced and self.peek(1).text == "/" and int(below):
            self.position += 3
            return Num(_mixed(token.text, Fraction(int(above), int(below))))
        raise GrammarError("two numbers side by side")

    def repeating(self, digits: str) -> Fraction:
        """The number, with the digits under a bar behind it, which repeat without end."""
        value = Fraction(digits)
        mark = self.peek(1)
        if "." not in digits or not self.at("\\overline", "\\dot") or mark.text != "{":
            return value
        period = self.peek(2)
        if period.kind != "number" or not period.text.isdigit() or len(digits + period.text) > MOST_DIGITS:
            raise GrammarError("what repeats is no digits")
        self.position += 3
        self.expect("}")
        places = len(digits.partition(".")[2])
        return value + Fraction(int(period.text), (10 ** len(period.text) - 1) * 10**places)

    def letters(self) -> ExprNode:
        """One variable, or a product of up to three, the last of which may have a subscript."""
        token = self.next()
        if token.text in MARKS:
            return Symbol(self.marked(token.text))
        if len(token.text) > LONGEST_PRODUCT:
            raise GrammarError("a word within an expression")
        if len(token.text) > 1:
            # An exponent or a subscript behind the run belongs to its last letter.
            self.position -= 1
            self.replace(Token("letters", token.text[1:], False))
            return Symbol(token.text[0])
        return Symbol(self.name(token.text))

    def name(self, name: str) -> str:
        """The name with its subscript and primes."""
        if self.take("_"):
            name += "_" + (self.subscript() if self.take("{") else self.next().text)
        while self.take("'"):
            name += "'"
        return name

    def subscript(self) -> str:
        """What stands in the braces of a subscript, without its spaces."""
        parts = []
        while not self.at("}"):
            token = self.next()
            if token.kind == "sign" and token.text not in "+-,()":
                raise GrammarError("subscript")
            parts.append(token.text)
        self.next()
        return "".join(parts)

    def marked(self, mark: str) -> str:
        """The name of a letter with a mark, such as ``\\vec v``; that of ``\\mathbb R`` is ``\\R``."""
        if self.take("{"):
            name = self.subscript()
        else:
            token = self.next()
            if token.kind != "letters" and token.text not in LETTERS:
                raise GrammarError("mark over no name")
            name = token.text
        return f"\\{name}" if mark == "\\mathbb" else self.name(f"{mark} {name}")


def is_function(token: Token) -> bool:
    return token.kind == "command" and token.text[1:] in FUNCTIONS


def product(factors: list[ExprNode]) -> ExprNode:
    """The product of factors; one of them is itself."""
    return factors[0] if len(factors) == 1 else Op("*", tuple(factors))


def _signed(sign: str, node: ExprNode) -> ExprNode:
    if sign == "+":
        return node
    return Op({"-": "neg", "\\pm": "pm", "\\mp": "mp"}[sign], (node,))


def _applied(name: str, argument: ExprNode, base: ExprNode) -> ExprNode:
    if name == "exp":
        return Op("^", (Symbol("e"), argument))
    if name == "ln":
        return Op("log", (Symbol("e"), argument))
    return Op("log", (base, argument)) if name == "log" else Op(name, (argument,))


def _mixed(integer: str, part: Fraction) -> Fraction:
    """A mixed number. One with an improper fraction is a sum still to be worked out."""
    if not 0 < part < 1:
        raise GrammarError("improper mixed number")
    return int(integer) + part
