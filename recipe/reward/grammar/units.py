# SPDX-License-Identifier: Apache-2.0
"""The units and words that may stand beside a number."""

from __future__ import annotations

_SPELLINGS = """
mm millimeter millimeters millimetre millimetres
cm centimeter centimeters centimetre centimetres
m meter meters metre metres
km kilometer kilometers kilometre kilometres
inch inches in
ft foot feet
yd yard yards
mi mile miles
mg milligram milligrams
g gram grams
kg kilogram kilograms
lb lbs pound pounds
oz ounce ounces
ml milliliter milliliters millilitre millilitres
l liter liters litre litres
gallon gallons
s sec second seconds
min minute minutes
h hr hrs hour hours
day days
week weeks
month months
year years
mph
dollar dollars usd
cent cents
degree degrees
percent
square sq
cubic
unit units
acre acres
radian radians rad
"""
_SHORT_WORDS = (
    "men way boy car cat dog egg cow hen pig cup jar can box bag row pen hat pie toy bus day set kid pts am pm"
)
_REFUSED_WORDS = """
not no minus negative plus than least most half twice double triple times root over divided by about around
approximately roughly nearly almost between up down more less fewer except but if when either both none
mod modulo base factorial quarter third fifth tenth
"""

UNITS: dict[str, str] = {word: line.split()[0] for line in _SPELLINGS.strip().splitlines() for word in line.split()}

#: Words that make another number of the one before them.
MULTIPLIERS: dict[str, int] = {
    "dozen": 12, "hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12,
}  # fmt: skip
#: Words of three letters or less that are no product of variables behind a number.
SHORT_WORDS = frozenset(_SHORT_WORDS.split())
#: Words that say something about the number, so that with them it is another answer or none.
_REFUSED = frozenset(_REFUSED_WORDS.split())
_MOST_WORDS = 6
_POWERS = {"2": "square", "3": "cubic", "squared": "square", "cubed": "cubic"}


class WordsError(ValueError):
    """The words are no unit and nothing that can be left out."""


def unit_of(words: list[str]) -> str:
    """One name for all spellings of a unit: "cm^2" and "square centimeters" are ``square cm``.

    Free words such as "ways" have a name that begins with "~"; "units" alone has an empty one. ``words`` may hold "/"
    or "per", and a power as digits behind its word. Raises WordsError for words that change the number.
    """
    if len(words) > _MOST_WORDS:
        raise WordsError("too many words")
    units: list[str] = []
    free: list[str] = []
    for word in words:
        if word in _POWERS and units:
            units.insert(len(units) - 1, _POWERS[word])
        elif word in ("per", "a", "an", "/", "each", "every") and len(words) > 1:
            units.append("per")
        elif word in UNITS:
            units.append(UNITS[word])
        elif word.isalpha() and word not in _REFUSED and word not in MULTIPLIERS:
            free.append(word[:-1] if word.endswith("s") and len(word) > 3 else word)
        else:
            raise WordsError(word)
    if any(word != "per" for word in units):
        unit = " ".join(units)
        return "" if unit in ("unit", "square unit", "cubic unit") else unit
    return "~" + " ".join(free) if free else ""


def same_unit(a: str, b: str) -> bool:
    """Whether two units may stand for one another: they are equal, or both are free words and share one."""
    if a.startswith("~") and b.startswith("~"):
        return bool(set(a[1:].split()) & set(b[1:].split()))
    return a == b
