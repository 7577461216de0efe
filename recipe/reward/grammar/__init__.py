# SPDX-License-Identifier: Apache-2.0
r"""From an answer's text to its value. Nothing is evaluated while reading; a text outside the grammar has no value.

Tier 1 brings texts that mean the same to one spelling; tier 2 cuts that into tokens and reads them into typed values.
``answers.read`` is the door. The parser's classes extend one another: ``Cursor``, ``Expressions``, ``Measures``,
``Matrices``, ``Answers``.

==================  ============================================================================================
``spelling.py``     tables of tier 1: characters and commands by what they are written as
``normalise.py``    tier 1: the text without what LaTeX does not show, and the key that two texts are compared by
``number.py``       plain numbers (decimals, fractions, percentages), read without the rest of the grammar
``values.py``       what an answer can be: a measure, tuple, set, relation, matrix, …, over expressions
``names.py``        tables of tier 2: functions, Greek letters, marks over a name
``units.py``        tables of tier 2: units, and the words that may stand beside a number
``tokens.py``       a tidied text → its tokens
``cursor.py``       a place in the tokens, and the steps that every part of the parser takes
``expressions.py``  sums, products, powers, roots, functions
``measures.py``     an expression with its unit, percent sign or decimal; ratios and times of day
``matrices.py``     matrices and vectors
``labels.py``       what may stand before "=" without being part of the answer: ``x``, ``P(A)``, ``\text{Area}``
``bases.py``        numbers in another base: ``37_8``
``signs.py``        the two values that ``\pm`` stands for
``answers.py``      lists, sets, intervals and relations, and so the whole answer
==================  ============================================================================================
"""
