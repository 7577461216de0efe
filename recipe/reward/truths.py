# SPDX-License-Identifier: Apache-2.0
r"""Whether a ground truth can be matched by an answer: asked by the converter and by preflight, before a run.

A truth can be matched when the run's rule calls the truth itself right, handed in as the answer in the form that the
rule looks for, and when the grammar reads it. For a text outside the grammar only the very same text is right: the
problem would pay nothing, whatever the model learns. Such truths are counted by what they look like (``_KINDS``).
"""

from __future__ import annotations

import re
from typing import Any

from recipe.reward.equality.compare import same_value
from recipe.reward.grade import alternatives
from recipe.reward.grammar.answers import read
from recipe.reward.response import LONGEST_ANSWER
from recipe.reward.verdict import Verdict
from recipe.reward.verifiers import Verifier, get_verifier

#: Rules that look for a last line "Answer:", and rules that compare texts and plain numbers, without the grammar.
LINED, TEXTS = ("dapo",), ("math_lighteval",)

#: Characters of a truth that every rule finds whole in its response: ``dapo`` looks at the last 300.
SHORT = 200
# A shortcut for what most truths are and the grammar surely reads, so that a data set takes seconds: numbers with or
# without a sign behind them, fractions, roots, points, closed intervals, sets of numbers, and quadratics.
_NUMBER, _POSITIVE = r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?", r"[1-9][0-9]{0,11}"
_INTEGER = rf"(?:0|-?{_POSITIVE})"
_ITEM = rf"(?:{_NUMBER}|-?\\frac\{{{_POSITIVE}\}}\{{{_POSITIVE}\}})"
_PLAIN = re.compile(
    rf"{_ITEM}(?:\\pi)?|{_NUMBER}(?:\\%|\^\\circ)|-?[1-9][0-9]{{0,2}}(?:,[0-9]{{3}}){{1,3}}"
    rf"|-?(?:{_POSITIVE})?\\sqrt\{{{_POSITIVE}\}}|\({_ITEM}, ?{_ITEM}\)|\[({_INTEGER}), ?(?!\1\]){_INTEGER}\]"
    rf"|\\\{{{_ITEM}(?:, ?{_ITEM}){{0,3}}\\\}}|(?:[1-9][0-9]?)?x\^2 ?[+-] ?{_POSITIVE}x ?[+-] ?{_POSITIVE}"
)
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)

#: Kinds of truths that cannot be matched, each with the pattern that tells it; the first that is found counts.
_KINDS = (
    ("box", re.compile(r"\\f?boxed")),
    ("matrix or cases", re.compile(r"\\begin")),
    ("function", re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|arc[a-z]+|ln|log|lg|exp|sum|int|lim|binom|lfloor|lceil)")),
    ("prose", re.compile(r"[A-Za-z]{2,} +[A-Za-z]+ +[A-Za-z]{2,}")),
    ("equation or inequality", re.compile(r"[=<>]|\\(?:l|g)e|\\ne|\\in(?![a-z])|\\equiv|\\mid")),
    ("ratio or time", re.compile(r":")),
)


def can_be_matched(truth: Any, verifier: str) -> bool:
    """Whether the rule named ``verifier`` calls an accepted answer in ``truth`` right, and the grammar reads it.

    A rule that compares texts needs no grammar. Raises ValueError for a rule that is not known.
    """
    rule = get_verifier(verifier)
    texts = [truth] if isinstance(truth, str) else alternatives(truth)
    return any(_is_matched(text, rule, verifier) for text in texts)


def unmatched_kind(truth: Any) -> str:
    """What a truth that cannot be matched looks like: "prose", "matrix or cases", ..., "other"."""
    texts = [str(answer) for answer in truth] if isinstance(truth, list | tuple) else [str(truth)]
    text = next(filter(str.strip, texts), "")
    if not text:
        return "empty"
    if len(text) > LONGEST_ANSWER:
        return f"over {LONGEST_ANSWER} characters"
    bare = text.replace("\\{", "").replace("\\}", "")
    if bare.count("{") != bare.count("}"):
        return "unbalanced braces"
    return next((kind for kind, pattern in _KINDS if pattern.search(text)), "other")


def _is_matched(text: str, rule: Verifier, verifier: str) -> bool:
    if verifier in TEXTS:
        return _is_right(text, rule, verifier)
    if _PLAIN.fullmatch(text):
        return True
    if len(text) > LONGEST_ANSWER or not _is_read(text):
        return False
    return _is_surely_found(text) or _is_right(text, rule, verifier)


def _is_surely_found(text: str) -> bool:
    """Whether every rule finds ``text`` in a response that holds it, as a quick check shows; the rule need not be run
    then."""
    if len(text) > SHORT or not text.isprintable() or "<" in text or ":" in text or "boxed" in text:
        return False
    depth = 0
    for mark in _BRACES.findall(text) if "\\" in text or "{" in text or "}" in text else ():
        depth += (mark == "{") - (mark == "}")
        if depth < 0:
            return False
    return depth == 0 and not text.endswith("\\")


def _is_right(text: str, rule: Verifier, verifier: str) -> bool:
    response = f"Answer: {text}" if verifier in LINED else f"<think>a</think><answer>\\boxed{{{text}}}</answer>"
    return rule(response, text).verdict is Verdict.CORRECT


def _is_read(text: str) -> bool:
    """Whether the grammar reads the text, and its value is known to equal itself."""
    value = read(text)
    return value is not None and same_value(value, value) is True
