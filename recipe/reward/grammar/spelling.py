# SPDX-License-Identifier: Apache-2.0
"""The tables of tier 1: characters and commands that mean the same as others."""

from __future__ import annotations

_GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi - pi rho - sigma tau upsilon phi chi psi omega"  # noqa: E501
_GREEK_LETTERS = {
    chr(0x3B1 + place): f"\\{name} " for place, name in enumerate(_GREEK.split()) if name != "-"
}  # fmt: skip

#: Characters by what they are written as in ASCII.
CHARACTERS: dict[int, str | None] = str.maketrans(
    {
        **{chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},  # full-width forms
        **_GREEK_LETTERS,
        **dict.fromkeys("−–—﹣", "-"),  # noqa: RUF001
        **dict.fromkeys("\u00a0\u2002\u2003\u2009\u200a\u202f\u3000", " "),
        **dict.fromkeys("\u200b\u2060\ufeff"),
        **dict.fromkeys("€£", " "),  # as "$", which is dropped
        **{"。": ".", "、": ",", "‘": "'", "’": "'", "′": "'", "″": "''"},  # noqa: RUF001
        **{"×": "\\cdot ", "·": "\\cdot ", "⋅": "\\cdot ", "÷": "/", "∪": "\\cup ", "∩": "\\cap ", "∞": "\\infty "},  # noqa: RUF001
        **{"°": "\\circ ", "±": "\\pm ", "∓": "\\mp ", "²": "^2", "³": "^3", "½": " 1/2", "¼": " 1/4", "¾": " 3/4"},
        **{"√": "\\sqrt ", "≤": "\\le ", "≥": "\\ge ", "≠": "\\ne ", "≈": "\\approx ", "∨": "\\or ", "∧": "\\and "},  # noqa: RUF001
        **{"∈": "\\in ", "∅": "\\emptyset ", "ℝ": "\\R ", "∠": "\\angle ", "△": "\\triangle ", "∖": "\\setminus "},  # noqa: RUF001
        **{"⌊": "\\lfloor ", "⌋": "\\rfloor ", "⌈": "\\lceil ", "⌉": "\\rceil ", "∣": "|", "∶": ":"},  # noqa: RUF001
    }
)

_SAME = """
\\frac dfrac tfrac cfrac sfrac nicefrac
\\binom dbinom tbinom
\\cdot times
/ div
\\circ degree
\\{ lbrace
\\} rbrace
\\text mbox textbf textit textrm textsf texttt textup textnormal mathrm operatorname emph
\\le leq leqslant leqq
\\ge geq geqslant geqq
\\ne neq
< lt
> gt
\\approx approxeq simeq doteq thickapprox
\\or lor vee
\\and land wedge
| mid vert
\\cup bigcup
\\emptyset varnothing oslash
\\setminus backslash smallsetminus
\\phi varphi
\\epsilon varepsilon
\\theta vartheta
\\vec overrightarrow
\\overline bar
\\arcsin asin
\\arccos acos
\\arctan atan arctg
\\tan tg
\\cot ctg cotg
\\csc cosec
\\log lg
"""
#: Commands that vanish: what they do is not seen, or their argument is kept as a group.
_VANISHING = (
    "displaystyle textstyle quad qquad big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr limits nolimits "
    "boldsymbol bm pmb mathbf mathit mathsf mathcal mathscr mathnormal ensuremath hline"
)
#: Commands by the one that stands for them.
COMMANDS: dict[str, str] = {
    **{name: line.split()[0] for line in _SAME.strip().splitlines() for name in line.split()[1:]},
    **dict.fromkeys(_VANISHING.split(), " "),
}
