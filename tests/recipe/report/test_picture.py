# SPDX-License-Identifier: Apache-2.0
"""The picture of a run: the right places, text as text, nothing from outside, and colours for dark windows too."""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

from recipe.report.colours import DARK, LIGHT
from recipe.report.curves import Curve, Points
from recipe.report.picture import SHOWN, picture

SUMMARY = {"seed": 4, "steps": 2, "device": "sim"}
HOSTILE = "<script>alert('1')</script>\u202e & \x1b[2J"


def drawn(*points: Points, name: str = "made-up", **summary: Any) -> ElementTree.Element:
    curves = [Curve(f"Title {shown}", shown, "what it is", list(each)) for shown, each in zip(SHOWN, points)]  # noqa: B905
    return ElementTree.fromstring(picture(name, SUMMARY | summary, curves))


def parts(svg: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return [element for element in svg.iter() if element.tag.rpartition("}")[2] == tag]


def texts(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in parts(svg, "text")]


def places(line: ElementTree.Element) -> list[tuple[float, float]]:
    return [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]  # type: ignore[misc]


def test_points_lie_where_the_axes_say() -> None:
    (line,) = parts(svg := drawn([(0, 0.0), (10, 0.5), (20, 2.0)]), "polyline")
    (x0, y0), (x1, y1), (x2, y2) = places(line)
    assert x1 - x0 == pytest.approx(x2 - x1) and x1 > x0
    assert y0 - y1 == pytest.approx((y0 - y2) / 4, abs=0.2) and y2 < y0
    heights = {text.text: float(text.attrib["y"]) - 4 for text in parts(svg, "text") if "right" in text.attrib["class"]}
    assert heights["0"] == pytest.approx(y0, abs=0.1) and heights["2"] == pytest.approx(y2, abs=0.1)
    across = {text.text: float(text.attrib["x"]) for text in parts(svg, "text") if "middle" in text.attrib["class"]}
    assert across["0"] == pytest.approx(x0, abs=0.1) and across["20"] == pytest.approx(x2, abs=0.1)
    assert len(parts(svg, "circle")) == 3


def test_all_panels_have_the_same_steps_across() -> None:
    lines = parts(drawn([(0, 1.0), (20, 1.0)], [(5, 1.0), (20, 1.0)]), "polyline")
    (first, last), (later, same) = (places(line) for line in lines)
    assert later[0] > first[0] and same[0] == last[0]


def test_first_and_last_value_stand_in_words_and_the_run_below() -> None:
    said = texts(drawn([(0, 0.3542), (2, 0.8811)], [], [(1, 9.527), (2, 15.8)]))
    assert "0.354 → 0.881" in said and "9.5 → 15.8" in said
    assert "Title validation_score" in said and "Title reward" not in said
    assert said[-1] == "made-up: 2 steps of GRPO, seed 4, simulated NPUs"
    assert texts(drawn([(0, 1.0)], seed=None, device="npu"))[-1] == "made-up: 2 steps of GRPO"


def test_it_needs_nothing_else_and_follows_the_reader_s_window() -> None:
    svg = drawn([(0, 1.0), (1, 2.0)], name=HOSTILE)
    assert {element.tag.rpartition("}")[2] for element in svg.iter()} == {
        *("svg", "title", "style", "rect", "g", "text", "line", "polyline", "circle")
    }
    assert not [name for element in svg.iter() for name in element.attrib if "href" in name or name.startswith("on")]
    (style,) = (part.text or "" for part in parts(svg, "style"))
    assert "url(" not in style and "@import" not in style and "@font-face" not in style
    light, dark = style.split("@media (prefers-color-scheme: dark)")
    for place in ("text", "note", "back", "line"):
        assert LIGHT[place] in light and DARK[place] in dark
    used = {name for element in svg.iter() for name in element.attrib.get("class", "").split()}
    assert used <= set(re.findall(r"\.(\w+) \{", style))
    assert "<script>alert('1')</script>" in texts(svg)[-1] and not re.search("[\x1b\u202e]", texts(svg)[-1])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_have_no_place_are_left_out(value: float) -> None:
    (line,) = parts(drawn([(0, 1.0), (1, value), (2, 2.0)]), "polyline")
    assert len(places(line)) == 2
    assert picture("made-up", SUMMARY, [Curve("Title", "reward", "label", [(1, value)])]) == ""


@pytest.mark.parametrize("points", [[(0, 0.0)], [(3, 5.0), (4, 5.0)], [(1, -2.0), (2, 3.0)], [(1, 1e-9), (2, 1e9)]])
def test_flat_single_negative_and_wide_curves_stay_within_the_picture(points: Points) -> None:
    svg = drawn(points)
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for x, y in places(parts(svg, "polyline")[0]):
        assert 0 <= x <= width and 0 <= y <= height
    lowest = next(text for text in parts(svg, "text") if text.attrib["class"] == "note right")
    assert float(lowest.text or "") <= min(value for _, value in points)
