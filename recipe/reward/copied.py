# SPDX-License-Identifier: Apache-2.0
r"""Work that the problem states and the answer leaves undone: a span of the problem, handed in as its answer.

For the problem "Simplify $\sqrt8+\sqrt{18}$" with the truth ``5\sqrt2``, the answer ``\sqrt8+\sqrt{18}`` has the right
value and shows no work. An answer that is right by the grades below is ``copied`` when it, or a part of it, has an
operator, stands in the problem, and is not how the truth is written. Parts are the items of a list, tuple or interval,
and what a name or the answer's own decimal is set beside (``E = \sqrt8+\sqrt{18}``).

Both texts are cut into tokens and compared token by token, so that spaces, spacing commands, dollar signs, braces and
the sizes of brackets make no difference, and ``3+4`` does not stand in ``13+45``. The cost is linear in the problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import zip_longest
from math import gcd
from typing import Any

from recipe.reward import grade
from recipe.reward.grade import Appeal, alternatives
from recipe.reward.grammar.normalise import normalise
from recipe.reward.response import LONGEST_ANSWER, answer_part, last_box
from recipe.reward.verdict import Verdict

#: Characters of a problem that are searched; a longer one is no problem but a file.
LONGEST_PROBLEM = 65536

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|\.[0-9]+|\S", re.DOTALL)
_SAME = str.maketrans(
    {
        **dict.fromkeys("−–—﹣－", "-"),  # noqa: RUF001
        **{"＋": "+", "×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "√": "\\sqrt ", "π": "\\pi "},  # noqa: RUF001
        **{"（": "(", "）": ")", "，": ",", "；": ";", "＝": "=", "²": "^2", "³": "^3", "°": "\\circ "},  # noqa: RUF001
        **{"≤": "\\le ", "≥": "\\ge ", "½": "\\frac12 ", "¼": "\\frac14 ", "¾": "\\frac34 "},
    }
)
# A comma between groups of three digits, in the spellings that are one number.
_GROUP_MARK = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,|,)(?=[0-9]{3}(?![0-9]))")
_SHOWN_AS_NOTHING = frozenset(
    (
        *("{", "}", "$", "~", "&", "`", "\\!", "\\,", "\\:", "\\;", "\\ ", "\\\n", "\\$", "\\(", "\\)", "\\[", "\\]"),
        *("\\left", "\\right", "\\big", "\\Big", "\\bigg", "\\Bigg", "\\bigl", "\\bigr", "\\Bigl", "\\Bigr"),
        *("\\quad", "\\qquad", "\\displaystyle", "\\textstyle", "\\limits", "\\boldsymbol", "\\mathbf", "\\mathrm"),
        *("\\text", "\\textbf", "\\mbox", "\\operatorname"),
    )
)
_RENAMED = {
    **dict.fromkeys(("\\dfrac", "\\tfrac", "\\cfrac", "\\sfrac", "\\nicefrac"), "\\frac"),
    **dict.fromkeys(("\\times", "\\cdot", "\\ast"), "*"),
    **{"\\div": "/", "\\over": "/", "\\leq": "\\le", "\\leqslant": "\\le", "\\geq": "\\ge", "\\geqslant": "\\ge"},
    **{"\\lbrack": "[", "\\rbrack": "]", "\\degree": "\\circ"},
    **{"\\dbinom": "\\binom", "\\tbinom": "\\binom"},
}
_OPERATORS = frozenset(
    (
        *("+", "-", "*", "/", "^", "!", "|", "\\pm", "\\mp", "\\frac", "\\sqrt", "\\binom", "\\lfloor", "\\lceil"),
        *("\\log", "\\ln", "\\lg", "\\exp", "\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc"),
        *("\\arcsin", "\\arccos", "\\arctan", "\\sum", "\\prod", "\\int", "\\lim", "\\gcd", "\\min", "\\max", "\\bmod"),
    )
)
_RELATIONS = frozenset(("=", "<", ">", "\\le", "\\ge", "\\in"))
_SEPARATORS = frozenset((",", ";", "\\cup", "\\lor", "\\vee", "\\{", "\\}"))
_OPENING, _CLOSING = frozenset("(["), frozenset(")]")

Tokens = tuple[str, ...]


def problem_in(extra_info: Any) -> str | None:
    """The problem's text where ``scripts/json_to_parquet.py`` puts it; None in files of other converters."""
    problem = extra_info.get("problem") if isinstance(extra_info, Mapping) else None
    return problem if isinstance(problem, str) else None


def grade_response(response: Any, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Verdict:
    """``grade.grade_response`` with ``copied`` for what was right and stands in ``problem``; None: nothing does."""
    verdict = grade.grade_response(response, truth, appeal)
    if problem is None or verdict is not Verdict.CORRECT:
        return verdict
    part = answer_part(response)
    return _unless_copied(verdict, None if part is None else last_box(part), truth, problem)


def grade_answer(answer: str | None, truth: Any, appeal: Appeal | None = None, problem: str | None = None) -> Verdict:
    """``grade.grade_answer``, in the same way."""
    return _unless_copied(grade.grade_answer(answer, truth, appeal), answer, truth, problem)


def grade_text(answer: str | None, truth: Any, problem: str | None = None) -> Verdict:
    """``grade.grade_text``, in the same way."""
    return _unless_copied(grade.grade_text(answer, truth), answer, truth, problem)


def is_copied(answer: str, truths: list[str], problem: str) -> bool:
    """Whether ``answer`` hands in work of ``problem`` undone, where each of ``truths`` is a way to write the answer."""
    if len(answer) > LONGEST_ANSWER or any(normalise(answer) == normalise(truth) for truth in truths):
        return False
    tokens = _tokens(answer)
    if not _has_operator(tokens):
        return False
    allowed = {part for truth in truths for part in _parts(_tokens(truth))}
    stated = _searchable(problem)
    return any(_as_text(part) in stated for part in _parts(tokens) if part not in allowed and _has_operator(part))


def _unless_copied(verdict: Verdict, answer: str | None, truth: Any, problem: str | None) -> Verdict:
    if verdict is not Verdict.CORRECT or answer is None or problem is None:
        return verdict
    return Verdict.COPIED if is_copied(answer, alternatives(truth), problem) else verdict


def _tokens(text: str) -> Tokens:
    """What LaTeX shows of ``text``: commands, numbers and single characters; both arguments of ``\\frac12`` apart."""
    text = _GROUP_MARK.sub("", text.translate(_SAME))
    shown: list[str] = []
    digits_apart = 0  # how many of the next digits are arguments of their own
    for token in _TOKEN.findall(text):
        token = _RENAMED.get(token, token)
        if token == "{":
            digits_apart = 0
        if token in _SHOWN_AS_NOTHING:
            continue
        if digits_apart and token.isdigit():
            arguments, rest = token[:digits_apart], token[digits_apart:]
            shown += arguments
            digits_apart -= len(arguments)
            if rest:
                shown.append(rest)
            continue
        shown.append(token)
        digits_apart = 2 if token == "\\frac" else 0
    # In "90^\circ" the "^" raises no power: it is dropped, so that the angle equals "90\circ" and has no operator.
    kept = [token for token, behind in zip_longest(shown, shown[1:]) if (token, behind) != ("^", "\\circ")]
    while kept and kept[-1] in (".", "。"):
        kept.pop()
    return tuple(kept)


def _as_text(tokens: Tokens) -> str:
    """The tokens as one text: it contains another such text only where that one's tokens stand in it in a row."""
    return f" {' '.join(tokens)} "


@lru_cache(maxsize=1024)
def _searchable(problem: str) -> str:
    """``_as_text`` of a problem, remembered: all answers of a group have the same one."""
    return _as_text(_tokens(problem[:LONGEST_PROBLEM]))


def _parts(tokens: Tokens) -> Iterator[Tokens]:
    """The whole answer, each item of a list, and each side of a relation whose other sides are names.

    Of an item that is followed by its own decimal ("\\approx"), what stands before that.
    """
    yield tokens
    for item in _split(tokens, _SEPARATORS):
        yield item
        value = item[: item.index("\\approx")] if "\\approx" in item else item
        sides = list(_split(value, _RELATIONS))
        are_names = list(map(_is_name, sides))
        for side, is_name in zip(sides, are_names, strict=True):
            if sum(are_names) - is_name == len(sides) - 1:
                yield side


def _split(tokens: Tokens, marks: frozenset[str]) -> Iterator[Tokens]:
    start = 0
    for place, token in enumerate(tokens):
        if token in marks:
            yield _bare(tokens[start:place])
            start = place + 1
    yield _bare(tokens[start:])


def _bare(tokens: Tokens) -> Tokens:
    """The tokens without a leading plus, without unmatched brackets at either end, and without a pair around all."""
    while tokens:
        depth = lowest = 0
        enclosed = tokens[0] in _OPENING and tokens[-1] in _CLOSING
        for place, token in enumerate(tokens):
            depth += (token in _OPENING) - (token in _CLOSING)
            lowest = min(lowest, depth)
            enclosed = enclosed and (depth > 0 or place == len(tokens) - 1)
        if enclosed and depth == 0:
            tokens = tokens[1:-1]
        elif tokens[0] == "+" or (tokens[0] in _OPENING and depth > 0):
            tokens = tokens[1:]
        elif tokens[-1] in _CLOSING and lowest < 0:
            tokens = tokens[:-1]
        else:
            break
    return tokens


def _has_operator(tokens: Tokens) -> bool:
    """Whether something is left to work out. A sign is no operator, and neither is a fraction in lowest terms."""
    body = [token for place, token in enumerate(tokens) if not (token == "-" and _begins_value(tokens, place))]
    return any(token in _OPERATORS for token in body) and not _is_reduced_fraction(body)


def _begins_value(tokens: Tokens, place: int) -> bool:
    preceding = tokens[place - 1] if place else ","
    return preceding in _OPENING or preceding in _SEPARATORS or preceding in _RELATIONS


def _is_name(tokens: Tokens) -> bool:
    """``x``, ``f(2)`` or ``\\theta``, whose value is what stands beside it."""
    return bool(tokens) and tokens[0][-1].isalpha() and not _has_operator(tokens)


def _is_reduced_fraction(body: list[str]) -> bool:
    r"""``\frac 1 2``, ``1 / 2`` or a mixed number of these, with a unit's letters or signs behind it."""
    while body and (body[-1] in ("\\circ", "\\%", "%") or body[-1].isalpha()):
        body = body[:-1]
    is_mixed = len(body) == 4 and body[0].isdigit()
    fraction = body[1:] if is_mixed else body
    if len(fraction) != 3:
        return False
    command, slash = fraction[0] == "\\frac", fraction[1] == "/"
    numbers = fraction[1:] if command else [fraction[0], fraction[2]]
    if command == slash or not all(number.isdigit() and len(number) <= 100 for number in numbers):
        return False
    above, below = map(int, numbers)
    return gcd(above, below) == 1 and below > 1 and (above < below or not is_mixed)
