# SPDX-License-Identifier: Apache-2.0
"""Answers of nine kinds and what they become when one thing in them goes wrong.

Everything is built from Python's integers and fractions and spelled in LaTeX, never read from it: the key beside each
text says exactly which answer it is.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import NamedTuple

#: A prime that is not among the grader's, by which powers that are too large to compute are told apart.
_PRIME = 2**89 - 1
_LARGEST_POWER = 4000


class KeyedAnswer(NamedTuple):
    """An answer: its ``key`` is equal to another's exactly when the two are the same answer."""

    key: Hashable
    text: str


WrongAnswer = tuple[str, KeyedAnswer]
Maker = Callable[[random.Random], tuple[KeyedAnswer, list[WrongAnswer]]]


def number(value: Fraction, rng: random.Random) -> str:
    """A number in one of its spellings."""
    if value.denominator == 1:
        return rng.choice((f"{value}", f"{value}.0" if rng.random() < 0.3 else f"{value}"))
    sign, above = ("-" if value < 0 else ""), abs(value.numerator)
    return rng.choice(
        (f"{sign}\\frac{{{above}}}{{{value.denominator}}}", f"{sign}{above}/{value.denominator}",
         f"{sign}\\dfrac{{{above}}}{{{value.denominator}}}")
    )  # fmt: skip


def drawn(rng: random.Random, size: int = 60) -> Fraction:
    return Fraction(rng.randint(-size, size), rng.choice((1, 1, 1, 2, 3, 4, 5, 7, 12)))


def moved(value: Fraction, rng: random.Random) -> tuple[str, Fraction]:
    """A number near another one in the way that digits and signs go wrong, with the rule's name."""
    rule = rng.choice(("digit", "digit", "sign", "factor", "digit more", "digits swapped"))
    if rule == "sign":
        return rule, -value
    if rule == "factor":
        return rule, value * rng.choice((2, 10, 100, 1000, Fraction(1, 2), Fraction(1, 100), 3, -1))
    above = str(abs(value.numerator))
    place = rng.randrange(len(above))
    if rule == "digit":
        above = above[:place] + rng.choice("0123456789") + above[place + 1 :]
    elif rule == "digit more":
        above = above[:place] + rng.choice("0123456789") + above[place:]
    else:
        above = above[place:] + above[:place]
    return rule, Fraction(int(above), value.denominator) * (-1 if value < 0 else 1)


def numbers(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    value = drawn(rng, 10 ** rng.randint(1, 9))
    rule, wrong_value = moved(value, rng)
    unit = rng.choice(("", "", "\\text{ cm}", " dollars", "^\\circ", "\\text{ ways}"))
    wrong: list[WrongAnswer] = [(rule, _number(wrong_value, rng, unit))]
    if unit:
        wrong.append(("unit", _number(value, rng, rng.choice(("\\text{ m}", " hours", "\\text{ kg}")))))
    name = rng.choice("xyn")
    wrong.append(("named", KeyedAnswer(("number", wrong_value), f"{name}={number(wrong_value, rng)}")))
    wrong.append(
        ("with its decimal", KeyedAnswer(("shown", value), f"{number(value, rng)}\\approx {_near(value, rng)}"))
    )
    wrong.append(
        (
            "several",
            KeyedAnswer(
                ("list", frozenset({value, wrong_value})),
                f"{number(value, rng)} \\text{{ or }} {number(wrong_value, rng)}",
            ),
        )
    )
    wrong.append(("unfinished", _unfinished(value, rng)))
    return _number(value, rng, unit), wrong


def _number(value: Fraction, rng: random.Random, unit: str) -> KeyedAnswer:
    return KeyedAnswer(("number", value, unit.strip()), number(value, rng) + unit)


def _near(value: Fraction, rng: random.Random) -> str:
    """A decimal that is more than two units of its last digit away."""
    places = rng.randint(1, 4)
    off = Fraction(rng.choice((-1, 1)) * rng.randint(3, 40), 10**places)
    scaled = (value + off) * 10**places
    digits = str(abs(round(scaled))).rjust(places + 1, "0")
    return ("-" if scaled < 0 else "") + digits[:-places] + "." + digits[-places:]


def _unfinished(value: Fraction, rng: random.Random) -> KeyedAnswer:
    """Arithmetic that comes to the value, which is not the value."""
    part = rng.randint(1, 9)
    written = number(value, rng)
    text = rng.choice(
        (f"{number(value - part, rng)}+{part}", f"\\sqrt{{{number(value * value, rng)}}}+0", f"{written}\\cdot 1",
         f"0\\frac{{{abs(value.numerator) * 3 + 3}}}{{3}}", f"--{number(abs(value), rng)}", f"({written})^1",
         f"{written}={number(value + part, rng)}")
    )  # fmt: skip
    return KeyedAnswer(("unfinished", text), text)


def powers(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    """A power plus a small number, the exponent moved by up to a million."""
    base, exponent, rest = rng.randint(2, 1000), rng.randint(2, 10 ** rng.randint(1, 6)), rng.randint(-9, 9)
    far_exponent = min(10**6, max(0, exponent + rng.choice((-1, 1)) * rng.randint(1, 10 ** rng.randint(1, 6))))
    wrong = [
        ("exponent", _power(base, far_exponent, rest)),
        ("exponent", _power(base, min(10**6, exponent + 61 * rng.randint(1, 100)), rest)),
        ("digit", _power(base, exponent, rest + rng.randint(1, 5))),
        ("factor", _power(rng.randint(2, 1000), exponent, rest)),
        ("exponent", KeyedAnswer(("power", 1, 0, 1), "1")),
        ("exponent", KeyedAnswer(("power", 1, 0, 0), "0")),
    ]
    return _power(base, exponent, rest), wrong


def _power(base: int, exponent: int, rest: int) -> KeyedAnswer:
    if exponent * base.bit_length() <= _LARGEST_POWER:
        key: Hashable = ("number", base**exponent + rest)
    else:
        key = ("power", pow(base, exponent, _PRIME) + rest)
    return KeyedAnswer(key, f"{base}^{{{exponent}}}" + (f"{rest:+d}" if rest else ""))


def surds(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    rational, factor, inside = drawn(rng, 20), drawn(rng, 9) or Fraction(1), rng.randint(2, 60)
    rule, wrong_factor = moved(factor, rng)
    wrong = [
        (rule, _surd(rational, wrong_factor, inside)),
        ("digit", _surd(rational, factor, inside + rng.randint(1, 9))),
        ("sign", _surd(-rational, factor, inside)),
        ("factor", _surd(2 * rational, 2 * factor, inside)),
    ]
    truth = _surd(rational, factor, inside)
    return truth, [*wrong, ("too small to be seen", _with_rest(truth, rng))]


def _with_rest(truth: KeyedAnswer, rng: random.Random) -> KeyedAnswer:
    """The answer and a power of two that no decimal shows."""
    exponent = rng.randint(100, 10 ** rng.randint(3, 6))
    return KeyedAnswer(("with a rest", truth.key, exponent), f"{truth.text}{rng.choice('+-')}2^{{-{exponent}}}")


def _surd(rational: Fraction, factor: Fraction, inside: int) -> KeyedAnswer:
    root, free = 1, inside
    for prime in (2, 3, 5, 7):
        while free % prime**2 == 0:
            root, free = root * prime, free // prime**2
    text = f"{_term(factor)}\\sqrt{{{inside}}}"
    if free == 1:
        key: Hashable = ("surd", rational + factor * root, 0, 1)
    else:
        key = ("surd", rational, factor * root if factor else 0, free if factor else 1)
    return KeyedAnswer(key, text if not rational else f"{rational}+{text}".replace("+-", "-"))


def _term(value: Fraction) -> str:
    sign = "-" if value < 0 else ""
    size = abs(value)
    return f"{sign}{size}" if size.denominator == 1 else f"{sign}\\frac{{{size.numerator}}}{{{size.denominator}}}"


def polynomials(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    """Polynomials of two variables, and multiples of pi, sines, logarithms, exponentials and absolute values."""
    atoms = rng.choice((("x", "y"), ("n", "m"), ("\\pi", "x"), ("\\sin x", "\\cos x"), ("\\ln x", "x"), ("e^x", "x"),
                        ("|x|", "|y|"), ("\\sqrt{x}", "\\sqrt{y}"), ("n!", "n"), ("2^n", "n")))  # fmt: skip
    terms = {(rng.randint(0, 3), rng.randint(0, 2)): drawn(rng, 12) for _ in range(rng.randint(1, 4))}
    changed = dict(terms)
    place = rng.choice(list(terms))
    rule, changed[place] = moved(terms[place], rng)
    raised = {
        (first + (place == (first, second)) * rng.randint(1, 5), second): value
        for (first, second), value in terms.items()
    }
    wrong_atoms = ("z", atoms[1]) if atoms[0] not in ("z", "\\sin x") else ("\\cos 2x", atoms[1])
    wrong = [
        (rule, _polynomial(changed, atoms, rng)),
        ("exponent", _polynomial(raised, atoms, rng)),
        ("variable", _polynomial(terms, wrong_atoms, rng)),
        ("sign", _polynomial({key: -value for key, value in terms.items()}, atoms, rng)),
        ("factor", _polynomial({key: 2 * value for key, value in terms.items()}, atoms, rng)),
    ]
    truth = _polynomial(terms, atoms, rng)
    return truth, [*wrong, ("too small to be seen", _with_rest(truth, rng))]


def _polynomial(terms: dict[tuple[int, int], Fraction], atoms: tuple[str, str], rng: random.Random) -> KeyedAnswer:
    terms = {exponents: value for exponents, value in terms.items() if value}
    parts = [_term(value) + _factor(atoms[0], i) + _factor(atoms[1], j) for (i, j), value in terms.items()]
    rng.shuffle(parts)
    # As sin^2 is 1 - cos^2, polynomials in the two that are written differently may be equal.
    reduced = _without_squares(terms) if atoms == ("\\sin x", "\\cos x") else terms
    used = tuple(atom if any(exponents[i] for exponents in reduced) else "" for i, atom in enumerate(atoms))
    return KeyedAnswer(("polynomial", used, frozenset(reduced.items())), "+".join(parts).replace("+-", "-") or "0")


def _factor(atom: str, exponent: int) -> str:
    if not exponent:
        return ""
    braced = atom if len(atom) == 1 or atom == "\\pi" else f"({atom})"
    return f" {braced}" if exponent == 1 else f" {braced}^{{{exponent}}}"


def _without_squares(terms: dict[tuple[int, int], Fraction]) -> dict[tuple[int, int], Fraction]:
    """The terms with 1 - cos^2 in place of sin^2, until no sine is squared."""
    reduced: Counter[tuple[int, int]] = Counter()
    waiting = list(terms.items())
    while waiting:
        (sines, cosines), value = waiting.pop()
        if sines < 2:
            reduced[sines, cosines] += value  # type: ignore[assignment]
        else:
            waiting += [((sines - 2, cosines), value), ((sines - 2, cosines + 2), -value)]
    return {exponents: value for exponents, value in reduced.items() if value}  # type: ignore[misc]


def groups(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    """Tuples, and lists and sets without order."""
    items = [drawn(rng, 30) for _ in range(rng.randint(2, 4))]
    place = rng.randrange(len(items))
    rule, wrong_value = moved(items[place], rng)
    changed = [*items[:place], wrong_value, *items[place + 1 :]]
    kind = rng.choice(("tuple", "list", "set"))
    wrong = [
        (rule, _group(kind, changed, rng)),
        ("item more", _group(kind, [*items, wrong_value], rng)),
        ("item less", _group(kind, items[:-1], rng) if len(items) > 2 else _group(kind, changed, rng)),
        ("swapped", _group(kind, items[::-1], rng)),
        ("brackets", _group("list" if kind == "tuple" else "tuple", items, rng)),
    ]
    return _group(kind, items, rng), wrong


def _group(kind: str, items: list[Fraction], rng: random.Random) -> KeyedAnswer:
    texts = [number(item, rng) for item in items]
    if kind == "tuple":
        return KeyedAnswer(("tuple", tuple(items)), f"({', '.join(texts)})")
    joined = ", ".join(texts)
    if kind == "list" and rng.random() < 0.5:
        joined = f"{', '.join(texts[:-1])} \\text{{ {rng.choice(('and', 'or'))} }} {texts[-1]}"
    return KeyedAnswer(("list", tuple(sorted(items))), joined if kind == "list" else f"\\{{{joined}\\}}")


def intervals(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    low, length = drawn(rng, 30), Fraction(rng.randint(1, 40), rng.choice((1, 2, 3)))
    closed, bounds = (rng.random() < 0.5, rng.random() < 0.5), (low, low + length)
    kind = rng.choice(("both", "above", "below"))
    rule, wrong_bound = moved(bounds[0], rng)
    wrong = [
        ("open for closed", _interval(kind, bounds, (not closed[0], not closed[1]), rng)),
        (rule, _interval(kind, (wrong_bound, max(wrong_bound, bounds[1]) + 1), closed, rng)),
        (
            "turned",
            _interval({"above": "below", "below": "above"}.get(kind, kind), (bounds[0], bounds[1] + 1), closed, rng),
        ),
        ("variable", _interval(kind, bounds, closed, rng, "t")),
    ]
    return _interval(kind, bounds, closed, rng, "x"), wrong


def _interval(
    kind: str, bounds: tuple[Fraction, Fraction], closed: tuple[bool, bool], rng: random.Random, name: str = ""
) -> KeyedAnswer:
    """``above``: all above the first bound; ``below``: all below the second one. With a name as an inequality."""
    low = bounds[0] if kind != "below" else None
    high = bounds[1] if kind != "above" else None
    key = (
        "interval",
        low,
        closed[0] and low is not None,
        high,
        closed[1] and high is not None,
        name if name == "t" else "",
    )
    name = name or rng.choice(("", "x"))
    texts = [number(bound, rng) if bound is not None else "" for bound in (low, high)]
    if name:
        signs = ["\\le " if includes else "<" for includes in closed]
        left = f"{texts[0]}{signs[0]}" if low is not None else ""
        right = f"{signs[1]}{texts[1]}" if high is not None else ""
        return KeyedAnswer(key, f"{left} {name} {right}")
    opening, closing = "[" if key[2] else "(", "]" if key[4] else ")"
    return KeyedAnswer(key, opening + (texts[0] or "-\\infty") + "," + (texts[1] or "\\infty") + closing)


def matrices(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    rows, columns = rng.choice(((2, 2), (2, 1), (3, 1), (1, 3), (2, 3), (3, 3)))
    entries = tuple(tuple(drawn(rng, 20) for _ in range(columns)) for _ in range(rows))
    row, column = rng.randrange(rows), rng.randrange(columns)
    rule, wrong_entry = moved(entries[row][column], rng)
    changed = [list(values) for values in entries]
    changed[row][column] = wrong_entry
    wrong = [
        (rule, _matrix(tuple(map(tuple, changed)), rng)),
        ("rows swapped", _matrix(entries[::-1], rng)),
        ("columns swapped", _matrix(tuple(values[::-1] for values in entries), rng)),
        ("transposed", _matrix(tuple(zip(*entries, strict=True)), rng)),
        ("row less", _matrix(entries[:-1] or ((wrong_entry,),), rng)),
        ("determinant", _matrix(entries, rng, "vmatrix")),
        ("brackets", KeyedAnswer(("tuple", entries[0]), f"({','.join(number(entry, rng) for entry in entries[0])})")),
    ]
    return _matrix(entries, rng), wrong


def _matrix(entries: tuple[tuple[Fraction, ...], ...], rng: random.Random, kind: str = "") -> KeyedAnswer:
    name = kind or rng.choice(("pmatrix", "bmatrix"))
    space = rng.choice(("", " "))
    text = f"{space}\\\\{space}".join(f"{space}&{space}".join(number(entry, rng) for entry in row) for row in entries)
    return KeyedAnswer(("matrix", kind, entries), f"\\begin{{{name}}}{space}{text}{space}\\end{{{name}}}")


def equations(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    """Lines a x + b y + c = 0 with all coefficients other than 0."""
    line = [Fraction(rng.choice((-1, 1)) * rng.randint(1, 12)) for _ in range(3)]
    place = rng.randrange(3)
    rule, wrong_value = moved(line[place], rng)
    changed = [*line[:place], wrong_value or Fraction(13), *line[place + 1 :]]
    wrong = [
        (rule, _line(changed, rng)),
        ("sign", _line([line[0], line[1], -line[2]], rng)),
        ("swapped", _line([line[1], line[0], line[2]], rng)),
        ("variable", KeyedAnswer(("line", "z"), _line(line, rng).text.replace("y", "z"))),
    ]
    return _line(line, rng), wrong


def _line(line: list[Fraction], rng: random.Random) -> KeyedAnswer:
    a, b, c = line
    scale = rng.choice((1, 2, -3, Fraction(1, 2)))
    general = "+".join(_term(scale * factor) + name for factor, name in zip(line, ("x", "y", ""), strict=True))
    slope = f"y={_term(-a / b)}x+{_term(-c / b)}"
    return KeyedAnswer(("line", a / c, b / c), rng.choice((f"{general}=0", slope)).replace("+-", "-"))


def digits(rng: random.Random) -> tuple[KeyedAnswer, list[WrongAnswer]]:
    """Numbers in other bases, ratios and times of day."""
    base, value = rng.randint(2, 16), rng.randint(8, 5000)
    above, below = rng.randint(1, 40), rng.randint(1, 40)
    hour, minute = rng.randint(1, 12), rng.randint(0, 59)
    other_base = rng.choice([candidate for candidate in range(2, 17) if candidate != base])
    choice = rng.randrange(3)
    if choice == 0:
        written = _in_base(value, base)
        wrong = [
            ("base", KeyedAnswer(("based", written, other_base), f"{written}_{{{other_base}}}")),
            ("base", KeyedAnswer(("number", value), str(value))),
            ("base", KeyedAnswer(("number", written), written)),
            (
                "digit",
                KeyedAnswer(("based", _in_base(value + 1, base), base), f"{_in_base(value + 1, base)}_{{{base}}}"),
            ),
        ]
        return KeyedAnswer(("based", written, base), f"{written}_{{{base}}}"), wrong
    if choice == 1:
        wrong = [
            ("swapped", KeyedAnswer(("ratio", Fraction(below, above)), f"{below}:{above}")),
            ("digit", KeyedAnswer(("ratio", Fraction(above + 1, below)), f"{above + 1}:{below}")),
            ("item more", KeyedAnswer(("ratio", above, below, 1), f"{above}:{below}:1")),
        ]
        return KeyedAnswer(("ratio", Fraction(above, below)), f"{above}:{below}"), wrong
    wrong = [
        ("swapped", KeyedAnswer(("time", minute, hour), f"{minute}:{hour:02d}")),
        ("digit", KeyedAnswer(("time", hour, (minute + 7) % 60), f"{hour}:{(minute + 7) % 60:02d}")),
        ("digit", KeyedAnswer(("time", hour % 12 + 1, minute), f"{hour % 12 + 1}:{minute:02d}")),
        ("half of the day", KeyedAnswer(("time", hour, minute, "am"), f"{hour}:{minute:02d}\\text{{ a.m.}}")),
    ]
    return KeyedAnswer(("time", hour, minute), f"{hour}:{minute:02d}\\text{{ p.m.}}"), wrong


def _in_base(value: int, base: int) -> str:
    written = ""
    while value:
        value, digit = divmod(value, base)
        written = "0123456789ABCDEF"[digit] + written
    return written


MAKERS: tuple[Maker, ...] = (
    numbers, powers, surds, polynomials, groups, intervals, matrices, equations, digits,
)  # fmt: skip


def same(a: Hashable, b: Hashable) -> bool:
    """Whether two keys are those of the same answer. A unit may be left out, but not be another one."""
    (value_a, unit_a), (value_b, unit_b) = _measure(a), _measure(b)
    return value_a == value_b and (unit_a == unit_b or not unit_a or not unit_b)


def _measure(key: Hashable) -> tuple[Hashable, str]:
    """The key without its unit, and the unit. A number has one key, however it was made."""
    if not isinstance(key, tuple):
        return key, ""
    if key[0] == "number":
        return ("number", key[1]), key[2] if len(key) > 2 else ""
    if key[0] == "power" and len(key) == 4:
        return ("number", key[3]), ""
    if key[0] == "surd" and not key[2]:
        return ("number", key[1]), ""
    return key, ""
