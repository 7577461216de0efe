# SPDX-License-Identifier: Apache-2.0
"""Tier 1: one spelling for texts that mean the same. ``docs/REWARDS.md`` lists every rule with its source.

``tidy`` changes only what LaTeX does not show and keeps ``\\text{…}`` apart, for the tokeniser; ``normalise`` goes on
to the key that two texts are compared by. Both expect a text within ``LONGEST_ANSWER``; no pattern can match one text
in two ways.
"""

from __future__ import annotations

import re

from recipe.reward.grammar.spelling import CHARACTERS, COMMANDS

# A digit group set apart by "{,}" or ",\!" or "\," is one number, also inside brackets.
_GROUP_MARK = re.compile(r"(?<=[0-9])(?:\{,\}|,\\!|\\,) ?(?=[0-9]{3}(?![0-9]))")
# The end of a row comes first: its second backslash begins nothing.
_ROW = re.compile(r"\\\\(?: ?\[[0-9.]{1,5} ?(?:pt|em|ex|mm|cm)\])?")
_DELIMITER = re.compile(r"\\(?:left|right) ?(\.|\||\\vert(?![A-Za-z]))|\\(?:left|right)(?![A-Za-z])")
_BOLD_WORD = re.compile(r"\\(?:mathbf|boldsymbol|mathit|mathsf|bm|pmb) ?(\{ ?[A-Za-z][A-Za-z ]+\})")
# "5!=120" has a factorial: only behind a space is "!=" one sign.
_TWO_SIGNS = re.compile(r"<=|>=| !=")
_RELATIONS = {"<": "\\le ", ">": "\\ge ", "!": " \\ne "}
_NO_MEANING = re.compile(r"\\[!,;: ()\[\]]|\\?\$|~")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_DEGREE = re.compile(r"\^ ?(?:\{ ?\\circ ?\}|\\circ(?![A-Za-z]))")
_PRIME = re.compile(r"\^ ?(?:\{ ?((?:\\prime ?)+)\}|(\\prime)(?![A-Za-z]))")
_THOUSANDS = re.compile(
    r"(?<![0-9.,])[0-9]{1,3}(?:,[0-9]{3})+(?![0-9,])|(?<![0-9., ])[0-9]{1,3}(?: [0-9]{3})+(?![0-9/ ])"
)
_SPACE = re.compile(r"\s+")
_SPACE_BY_SIGN = re.compile(r" ?([^\w\s]) ?")
_TEXT = re.compile(r"\\text ?\{([^{}]*)\}")
_JOINING = re.compile(r"(?<![A-Za-z\\])(and|or)(?![A-Za-z])|\\text ?\{ ?[,;]? ?(and|or) ?[,:]? ?\}")
_ORDINAL = re.compile(
    r"(?<=[0-9])(?: ?\^ ?\{ ?(?:\\text ?\{ ?(?:st|nd|rd|th) ?\}|(?:st|nd|rd|th)) ?\}| ?\\text ?\{ ?(?:st|nd|rd|th) ?\})"
    r"|(?<=^[0-9])(?:st|nd|rd|th)$|(?<=^[0-9]{2})(?:st|nd|rd|th)$"
)
_HALF_OF_DAY = re.compile(r"(?<![A-Za-z])([ap])\. ?m\.?(?![A-Za-z])", re.IGNORECASE)
_BOLD = ("**", "__")
_WORDS = frozenset(("yes", "no", "true", "false"))


def tidy(answer: str) -> str:
    """The text without what LaTeX does not show, in ASCII where there is a spelling in it."""
    if answer.isascii() and answer.isdigit():
        return answer
    text = answer if answer.isascii() else answer.translate(CHARACTERS)
    if "\\" in text:
        text = _commands(_GROUP_MARK.sub("", text))
    elif "{,}" in text:
        text = _GROUP_MARK.sub("", text)
    if "=" in text:
        text = _TWO_SIGNS.sub(lambda match: _RELATIONS[match[0][-2]], text)
    if "\\" in text or "$" in text or "~" in text:
        text = _NO_MEANING.sub(" ", text)
    text = _SPACE.sub(" ", text).strip()
    if text[:2] in _BOLD and text.endswith(text[:2]) and len(text) > 4:
        text = text[2:-2].strip()
    text = text.rstrip("., ") if text.endswith((".", ",")) and not text.endswith("\\.") else text
    # Inside brackets a comma separates; outside of them "1,234" is one number.
    if not any(bracket in text for bracket in ("(", "[", "\\{")):
        text = _THOUSANDS.sub(lambda match: match[0].replace(",", "").replace(" ", ""), text)
    return text


def _commands(text: str) -> str:
    # Outside of a matrix a doubled backslash is an escaped one.
    text = _ROW.sub(r"\\newrow ", text) if "\\begin" in text else text.replace("\\\\", "\\")
    text = _DELIMITER.sub(_delimiter, text)
    text = _BOLD_WORD.sub(r"\\text\1", text)
    text = _COMMAND.sub(lambda match: COMMANDS.get(match[1], match[0]), text)
    text = _PRIME.sub(lambda match: "'" * (match[1] or match[2]).count("\\"), text)
    return _DEGREE.sub(r"\\circ ", text)


def _delimiter(match: re.Match[str]) -> str:
    if match[1] in (None, "."):
        return " "
    return "\\lvert " if match[0].startswith("\\left") else "\\rvert "


def normalise(answer: str) -> str:
    """The key by which texts are compared. Equal keys: the same answer. A blank key is no answer."""
    text = tidy(answer)
    if text.isdigit():
        return text
    if "\\" in text:
        text = _TEXT.sub(r" \1 ", text).replace("\\lvert", "|").replace("\\rvert", "|")
    text = _SPACE_BY_SIGN.sub(r"\1", _SPACE.sub(" ", text)).strip()
    if len(text) == 3 and text[0] == "(" and text[2] == ")" and text[1].isalpha():
        return text[1]
    if text.replace(" ", "").isalpha() and (len(text) > 2 or text.casefold() in _WORDS):
        return text.casefold()
    return text


def join_lists(text: str) -> str:
    """A tidied text with "and" and "or" as signs: "1 and 2" is "1 \\and 2"; "p.m." is one word, "11th" a number."""
    if "and" in text or "or" in text:
        text = _JOINING.sub(lambda match: f" \\{match[1] or match[2]} ", text)
    if "m" in text or "M" in text:
        text = _HALF_OF_DAY.sub(r"\1m", text)
    return _ORDINAL.sub("", text) if "t" in text or "d" in text else text
