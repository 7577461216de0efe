# SPDX-License-Identifier: Apache-2.0
"""Numbers in another base: ``37_8``, ``2A_{16}``, ``101_{two}``, ``\\text{A5}_{11}``."""

from __future__ import annotations

import re

from recipe.reward.grammar.values import BasedNumber

_NAMES = {
    "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
    "eleven": 11, "twelve": 12, "sixteen": 16,
}  # fmt: skip
_BASED = re.compile(
    r"(-?) ?\(? ?((?:[0-9A-Z]|\\text ?\{ ?[0-9A-Z]{1,30} ?\})+) ?\)? ?_ ?"
    r"(?:([0-9])|\{ ?\(?(?:\\text ?\{)? ?(?:base ?)?([0-9]{1,2}|[a-z]{3,7}) ?\}?\)?\})"
)
_TEXT = re.compile(r"\\text ?\{ ?([0-9A-Z]+) ?\}")
_LARGEST = 36


def read_based(text: str) -> BasedNumber | None:
    """The number that the whole text is; None for any other text, and where the base lacks one of the digits."""
    if "_" not in text:
        return None
    match = _BASED.fullmatch(text)
    if match is None:
        return None
    digits = _TEXT.sub(r"\1", match[2])
    index = match[3] or match[4]
    base = int(index) if index.isdigit() else _NAMES.get(index, 0)
    if not any(digit.isdigit() for digit in digits) or not 2 <= base <= _LARGEST:
        return None
    if any(int(digit, _LARGEST) >= base for digit in digits):
        return None
    return BasedNumber(match[1] + (digits.lstrip("0") or "0"), base)
