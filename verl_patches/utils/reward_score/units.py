# SPDX-License-Identifier: Apache-2.0
"""The units that may stand behind a number, each with one name for its spellings."""

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
"""

UNITS: dict[str, str] = {word: line.split()[0] for line in _SPELLINGS.strip().splitlines() for word in line.split()}
