# SPDX-License-Identifier: Apache-2.0
"""Whether two values that were read are the same answer: yes, no, or not known.

``compare.same_value`` is the door; what it stands on comes first:

==================  ============================================================================================
``exact.py``        the value of a constant as a fraction, and of a rational function modulo a prime
``surds.py``        numbers with one square root, exactly
``series.py``       sine, cosine and arc tangent, which Python's decimal module lacks
``reals.py``        real values of an expression at a point, in two precisions and within an effort
``points.py``       the points at which two expressions are compared
``rests.py``        what is left of two expressions without what both have
``expressions.py``  are two expressions the same function, or proportional?
``regions.py``      are two inequalities, intervals or unions of them the same set of real numbers?
``relations.py``    are two equations, or other relations, the same up to a factor?
``compare.py``      are two values of any type the same answer?
==================  ============================================================================================
"""
