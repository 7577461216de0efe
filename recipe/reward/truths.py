# SPDX-License-Identifier: Apache-2.0
r"""Whether a ground truth can be matched by an answer: what the converter and preflight ask before a run does.

A truth can be matched when the run's rule calls it right as its own answer, in the form that the rule looks for, and
when its grammar reads it: of a text outside the grammar nothing but the very same text is right, so a problem with
such a truth teaches that nothing pays. Why it cannot be read is told by its look, for a person to count.
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

#: Rules that look at a last line "Answer:", and rules that compare texts and numbers and read no grammar.
LINED, TEXTS = ("dapo",), ("math_lighteval",)

#: Characters up to which an answer is within every rule's window.
SHORT = 200
# What most truths are, and every grammar reads, so that forty thousand take a second: numbers, alone or with a sign
# behind them, fractions, roots, points, intervals with two ends, sets, and quadratics.
_NUMBER, _POSITIVE = r"-?[0-9]{1,12}(?:\.[0-9]{1,12})?", r"[1-9][0-9]{0,11}"
_WHOLE = rf"(?:0|-?{_POSITIVE})"
_ITEM = rf"(?:{_NUMBER}|-?\\frac\{{{_POSITIVE}\}}\{{{_POSITIVE}\}})"
_PLAIN = re.compile(
    rf"{_ITEM}(?:\\pi)?|{_NUMBER}(?:\\%|\^\\circ)|-?[1-9][0-9]{{0,2}}(?:,[0-9]{{3}}){{1,3}}"
    rf"|-?(?:{_POSITIVE})?\\sqrt\{{{_POSITIVE}\}}|\({_ITEM}, ?{_ITEM}\)|\[({_WHOLE}), ?(?!\1\]){_WHOLE}\]"
    rf"|\\\{{{_ITEM}(?:, ?{_ITEM}){{0,3}}\\\}}|(?:[1-9][0-9]?)?x\^2 ?[+-] ?{_POSITIVE}x ?[+-] ?{_POSITIVE}"
)
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)

#: Kinds of truths that cannot be matched, by a pattern that is looked for in them; the first that is found counts.
_KINDS = (
    ("box", re.compile(r"\\f?boxed")),
    ("matrix or cases", re.compile(r"\\begin")),
    ("function", re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|arc[a-z]+|ln|log|lg|exp|sum|int|lim|binom|lfloor|lceil)")),
    ("prose", re.compile(r"[A-Za-z]{2,} +[A-Za-z]+ +[A-Za-z]{2,}")),
    ("equation or inequality", re.compile(r"[=<>]|\\(?:l|g)e|\\ne|\\in(?![a-z])|\\equiv|\\mid")),
    ("ratio or time", re.compile(r":")),
)


def can_be_matched(truth: Any, verifier: str) -> bool:
    """Whether any of the accepted answers in ``truth`` is right by the rule ``verifier`` and, where it reads, read.

    Raises ValueError for a rule that is not known.
    """
    rule = get_verifier(verifier)
    texts = [truth] if isinstance(truth, str) else alternatives(truth)
    return any(_is_matched(text, rule, verifier) for text in texts)


def unmatched_kind(truth: Any) -> str:
    """What a truth that cannot be matched looks like: "prose", "matrix or cases", ..., "other"."""
    texts = [str(one) for one in truth] if isinstance(truth, list | tuple) else [str(truth)]
    text = next((one for one in texts if one.strip()), "")
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
    return len(text) <= LONGEST_ANSWER and _is_read(text) and (_is_found_again(text) or _is_right(text, rule, verifier))


def _is_found_again(text: str) -> bool:
    """Whether it is plain to see that every rule finds ``text`` where it is put; it saves the rule's own look."""
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
    value = read(text)
    return value is not None and same_value(value, value) is True
