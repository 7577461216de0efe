# SPDX-License-Identifier: Apache-2.0
"""Tier 1: one spelling for texts that mean the same. ``docs/REWARDS.md`` lists every rule with its source.

``tidy`` changes only what LaTeX does not show and keeps ``\\text{…}`` apart, for the tokeniser; ``normalise`` goes on
to the key that two texts are compared by. Both expect a text within ``LONGEST_ANSWER``; no pattern can match one text
in two ways.
"""

from __future__ import annotations

import re

_SAME_CHARACTER = str.maketrans(
    {
        **dict.fromkeys("−–—﹣－", "-"),  # noqa: RUF001
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u200b\u2060\ufeff"),
        **{"，": ",", "％": "%", "（": "(", "）": ")", "＝": "=", "＋": "+"},  # noqa: RUF001
        **{"×": "\\cdot ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "/", "∪": "\\cup ", "∞": "\\infty ", "π": "\\pi "},  # noqa: RUF001
        **{"°": "\\circ ", "±": "\\pm ", "²": "^2", "³": "^3", "½": " 1/2", "¼": " 1/4", "¾": " 3/4", "√": "\\sqrt "},
    }
)
# A digit group set apart by "{,}" or ",\!" or "\," is one number, also inside brackets.
_GROUP_MARK = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,)(?=[0-9]{3}(?![0-9]))")
_NO_MEANING = re.compile(
    r"\\(?:left|right|displaystyle|quad|qquad|big|Big|bigl|bigr|Bigl|Bigr)(?![A-Za-z])|\\[!,;: ]|\\?\$|~"
)
_RENAMED = {
    "dfrac": "\\frac",
    "tfrac": "\\frac",
    "cfrac": "\\frac",
    "times": "\\cdot",
    "degree": "\\circ",
    "lbrace": "\\{",
    "rbrace": "\\}",
    "div": "/",
    "mbox": "\\text",
    "textbf": "\\text",
    "textit": "\\text",
    "mathrm": "\\text",
    "mathbf": "\\text",
    "operatorname": "\\text",
}
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_DEGREE = re.compile(r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z]))")
_THOUSANDS = re.compile(
    r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|(?<![0-9., ])[0-9]{1,3}(?: [0-9]{3})+(?![0-9/ ])"
)
_SPACE = re.compile(r"\s+")
_SPACE_BY_SIGN = re.compile(r" ?([^\w\s]) ?")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_JOINING = re.compile(r"(?<![A-Za-z])(?:and|or)(?![A-Za-z])|\\(?:text|mbox) ?\{ ?(?:and|or) ?\}")
_WORDS = frozenset(("yes", "no", "true", "false"))


def tidy(answer: str) -> str:
    """The text without what LaTeX does not show, in ASCII where there is a spelling in it."""
    if answer.isascii() and answer.isdigit():
        return answer
    text = answer.translate(_SAME_CHARACTER)
    if "\\" in text:
        text = _GROUP_MARK.sub("", text)
        text = _COMMAND.sub(lambda match: _RENAMED.get(match[1], match[0]), text)
        text = _DEGREE.sub(r"\\circ ", text)
    elif "{,}" in text:
        text = _GROUP_MARK.sub("", text)
    if "\\" in text or "$" in text or "~" in text:
        text = _NO_MEANING.sub(" ", text)
    text = _SPACE.sub(" ", text).strip()
    if text.endswith(".") and not text.endswith("\\."):
        text = text[:-1].rstrip()
    # Inside brackets a comma separates; outside of them "1,234" is one number.
    if not any(bracket in text for bracket in ("(", "[", "\\{")):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", "").replace(" ", ""), text)
    return text


def normalise(answer: str) -> str:
    """The key by which texts are compared. Equal keys: the same answer. A blank key is no answer."""
    text = tidy(answer)
    if text.isdigit():
        return text
    if "\\text" in text:
        text = _TEXT.sub(r" \1 ", text)
    text = _SPACE_BY_SIGN.sub(r"\1", _SPACE.sub(" ", text)).strip()
    if len(text) == 3 and text[0] == "(" and text[2] == ")" and text[1].isalpha():
        return text[1]
    if text.replace(" ", "").isalpha() and (len(text) > 2 or text.casefold() in _WORDS):
        return text.casefold()
    return text


def join_lists(text: str) -> str:
    """A tidied text with "and" and "or" between values written as commas: "1 and 2" is "1, 2"."""
    return _JOINING.sub(",", text) if "and" in text or "or" in text else text
