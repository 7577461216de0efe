# SPDX-License-Identifier: Apache-2.0
r"""Matrices and vectors.

::

    matrix = [scalar] rows ["^" "T"] | ("(" | "[") rows (")" | "]") | "|" rows "|"
    rows   = "\begin{…matrix}" or "\begin{array}{…}", entries with "&" between, rows with "\\" between, "\end{…}"
"""

from __future__ import annotations

from recipe.reward.grammar.measures import Measures
from recipe.reward.grammar.tokens import GrammarError
from recipe.reward.grammar.values import Matrix, Value

MOST_ENTRIES = 36

_KINDS = {
    **dict.fromkeys(("matrix", "pmatrix", "bmatrix", "Bmatrix", "smallmatrix", "array"), "matrix"),
    "vmatrix": "det",
}
_BRACKETS = {"(": ")", "[": "]", "|": "|", "\\lvert": "\\rvert"}


class Matrices(Measures):
    """Reads a matrix; its entries are items of the answer grammar."""

    def item(self) -> Value:
        """One entry, which ``Answers`` reads."""
        raise NotImplementedError

    def begins_matrix(self) -> bool:
        return self.peek(self.peek().text in _BRACKETS).text.startswith("\\begin{")

    def matrix(self) -> Matrix:
        closing = _BRACKETS.get(self.peek().text)
        if closing is not None:
            self.next()
        kind, rows = self.rows()
        if closing is not None:
            self.expect(closing)
            kind = "det" if closing in ("|", "\\rvert") else kind
        if self.at("^") and "T" in (self.peek(1).text, self.peek(2).text):
            self.next()
            if self.single_or_braced() != "T":
                raise GrammarError("power of a matrix")
            rows = list(zip(*rows, strict=True))
        return Matrix(kind, tuple(rows))

    def single_or_braced(self) -> str:
        if not self.take("{"):
            return self.next().text
        text = self.next().text
        self.expect("}")
        return text

    def rows(self) -> tuple[str, list[tuple[Value, ...]]]:
        """The kind of matrix that an environment makes, and its rows."""
        name = self.next().text[len("\\begin{") : -1]
        if name not in _KINDS:
            raise GrammarError(f"no matrix: {name}")
        if name == "array" and self.take("{"):
            while not self.take("}"):
                self.next()
        self.enter()
        rows: list[tuple[Value, ...]] = []
        entries = 0
        while self.peek().text != f"\\end{{{name}}}":
            if self.take("\\newrow"):
                continue
            row = [self.item()]
            while self.take("&"):
                row.append(self.item())
            entries += len(row)
            if entries > MOST_ENTRIES:
                raise GrammarError("too many entries")
            rows.append(tuple(row))
            if not self.at("\\newrow") and self.peek().text != f"\\end{{{name}}}":
                raise GrammarError("an entry that does not end")
        self.next()
        self.depth -= 1
        if not rows or len({len(row) for row in rows}) > 1:
            raise GrammarError("rows of different lengths")
        return _KINDS[name], rows
