# SPDX-License-Identifier: Apache-2.0
"""Grading in processes of their own, so that no text can take the trainer down or hold it up.

===================  ===========================================================================================
``batch.py``         grades a batch in several workers and replaces those that die; ``pool_for`` is the door
``worker.py``        the program that a worker runs, on the standard library alone
``line_process.py``  a child process that is asked in lines of JSON and answers in lines of JSON
``tier3.py``         puts what the grammar cannot read to math-verify
``tier3_worker.py``  the program in which math-verify runs, within limits
``errors.py``        what stops a run: verdicts that cannot be trusted, processes that do not start
===================  ===========================================================================================
"""
