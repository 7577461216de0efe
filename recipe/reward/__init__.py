# SPDX-License-Identifier: Apache-2.0
r"""The rule reward: from the text of a response to a verdict and a score.

The text is written by the model that is trained on the score. So nothing here evaluates it, every step is linear in
its length, and every cost has a budget. Nothing is imported but Python's standard library, as each grading process
imports it anew; tier 3, off by default, asks math-verify in a process of its own. ``docs/REWARDS.md`` has the rules.

In the order in which a response passes through them:

==================  ============================================================================================
``response.py``     response → answer: the tags of the format, the part in ``<answer>``, the last ``\boxed{…}``
``grammar/``        answer → value: one spelling for what means the same (tier 1), then a closed grammar (tier 2)
``equality/``       two values → the same or not: exactly, modulo two primes, or at random points
``verdict.py``      what grading can come to: correct, wrong, copied, unparseable, …
``grade.py``        answer and ground truth → verdict; a ground truth may be a list of accepted answers
``copied.py``       the same, but work of the problem that was left undone is ``copied`` instead of ``correct``
``verifiers.py``    response and ground truth → score, by the rule that a run names (``r1_zero`` is the default)
``truths.py``       before a run: whether a ground truth can be matched by any answer
``processes/``      a batch → its scores, in processes that a hostile text may kill; tier 3
==================  ============================================================================================

verl loads ``verl_patches/utils/reward_score/r1_zero.py``, which asks ``verifiers`` about one response and
``processes.batch`` about a batch.
"""
