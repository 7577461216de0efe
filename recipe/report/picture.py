# SPDX-License-Identifier: Apache-2.0
"""One SVG of a run: validation score, reward and response length over its steps.

Text stays text, in whatever font the reader's system has; the colours follow the reader's light or dark window.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from typing import Any

from recipe.report.colours import CURVE_DARK, CURVE_LIGHT, DARK, LIGHT
from recipe.report.curves import Curve, Points
from recipe.text import printable

SHOWN = ("validation_score", "reward", "response_length")
PANEL, HEIGHT, MARGIN = 310, 256, 10  # pixels: a panel's width, the picture's height, what is left free around it
LEFT, TOP, BOTTOM = 40, 52, 66  # within a panel, what its axes take
DOTS = 30  # up to that many points of a curve get a dot each


def picture(name: str, summary: dict[str, Any], curves: Sequence[Curve]) -> str:
    """The SVG of a run; "" where it has none of the curves shown.

    Args:
        name: of the run.
        summary: what `recipe.report.summary.summarise` gives.
        curves: of its steps; NaN and infinities are left out.
    """
    by_name = {curve.name: curve for curve in curves}
    panels = [
        (by_name[shown], points)
        for shown in SHOWN
        if shown in by_name and (points := [point for point in by_name[shown].points if all(map(math.isfinite, point))])
    ]
    if not panels:
        return ""
    steps = [step for _, points in panels for step, _ in points]
    facts = [f"{summary['steps']} steps of GRPO"]
    facts += [f"seed {summary['seed']}"] if summary["seed"] is not None else []
    facts += ["simulated NPUs"] if summary["device"] == "sim" else []
    caption = f"{name}: {', '.join(facts)}"
    width = PANEL * len(panels) + 2 * MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" role="img">',
        f"<title>{_safe(caption)}</title>",
        f"<style>{_style()}</style>",
        '<rect class="back" width="100%" height="100%" rx="6"/>',
    ]
    for place, (curve, points) in enumerate(panels):
        lines += [f'<g transform="translate({MARGIN + place * PANEL} 0)">']
        lines += _panel(curve, points, min(steps), max(steps))
        lines += ["</g>"]
    lines += [_text(MARGIN + 6, HEIGHT - 10, caption, "note"), "</svg>"]
    return "\n".join(lines) + "\n"


def _style() -> str:
    return (
        "text { font: 12px system-ui, sans-serif } .title { font-weight: 600; font-size: 14px } "
        ".right { text-anchor: end } .middle { text-anchor: middle } .curve { fill: none; stroke-width: 2 }\n"
        f"{_colours(LIGHT, CURVE_LIGHT)}\n"
        f"@media (prefers-color-scheme: dark) {{ {_colours(DARK, CURVE_DARK)} }}"
    )


def _colours(by_use: dict[str, str], curve: str) -> str:
    fills = {"text": by_use["text"], ".note": by_use["note"], ".back": by_use["back"], ".dot": curve}
    strokes = {".grid": by_use["line"], ".curve": curve}
    rules = [f"{place} {{ fill: {colour} }}" for place, colour in fills.items()]
    return " ".join(rules + [f"{place} {{ stroke: {colour} }}" for place, colour in strokes.items()])


def _panel(curve: Curve, points: Points, first: float, last: float) -> Iterator[str]:
    """Title, axes and line of one curve; all panels have the steps `first` to `last` across."""
    values = [value for _, value in points]
    low = 0.0 if curve.from_zero and min(values) >= 0 else min(values)
    up = _ticks(low, max(values), 4)
    right, bottom = PANEL - 14, HEIGHT - BOTTOM

    def x(step: float) -> float:
        return LEFT + (right - LEFT) * (step - first) / ((last - first) or 1)

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (value - up[0]) / (up[-1] - up[0])

    yield _text(6, 22, curve.title, "title")
    yield _text(6, 39, curve.label, "note")
    digits = 3 if max(map(abs, values)) < 10 else 1
    yield _text(right, 22, f"{values[0]:.{digits}f} → {values[-1]:.{digits}f}", "right")
    for tick in up:
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        yield _text(LEFT - 6, y(tick) + 4, f"{tick:g}", "note right")
    for tick in _ticks(first, last, 5, integer=True):
        if first <= tick <= last:
            yield _text(x(tick), bottom + 17, f"{tick:g}", "note middle")
    yield _text(right, bottom + 33, "step", "note right")
    places = [(f"{x(step):.1f}", f"{y(value):.1f}") for step, value in points]
    yield f'<polyline class="curve" points="{" ".join(map(",".join, places))}"/>'
    if len(places) <= DOTS:
        yield from (f'<circle class="dot" cx="{across}" cy="{down}" r="3"/>' for across, down in places)


def _ticks(low: float, high: float, count: int, integer: bool = False) -> list[float]:
    """Round values, `count` intervals at most, of which the first and the last enclose `low` and `high`."""
    from matplotlib.ticker import MaxNLocator

    ticks = MaxNLocator(count, integer=integer, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:.1f}">{_safe(text)}</text>'


def _safe(text: str) -> str:
    return html.escape(printable(text))
