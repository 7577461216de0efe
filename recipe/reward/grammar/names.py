# SPDX-License-Identifier: Apache-2.0
"""The names that the grammar knows: functions of one argument, Greek letters, marks over a name."""

from __future__ import annotations

_CIRCULAR = ("sin", "cos", "tan", "cot", "sec", "csc")
_HYPERBOLIC = ("sinh", "cosh", "tanh", "coth")
#: The inverse of each function that "^{-1}" turns around.
INVERSES: dict[str, str] = {name: f"arc{name}" for name in _CIRCULAR}
#: Functions whose argument may stand without brackets.
FUNCTIONS = frozenset((*_CIRCULAR, *INVERSES.values(), *_HYPERBOLIC, "ln", "log", "exp"))
#: Words that are commands even without a backslash.
NAMES = FUNCTIONS | {"sqrt", "pi"}

_LETTERS = """
alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega
Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega ell hbar imath R Z N Q C
"""
LETTERS = frozenset(f"\\{name}" for name in _LETTERS.split())
#: Commands that set a mark over a name, and make another name of it.
_MARKS = "overline vec hat widehat tilde dot ddot mathbb angle triangle"
MARKS = frozenset(f"\\{name}" for name in _MARKS.split())
