# SPDX-License-Identifier: Apache-2.0
"""Errors that stop a run: no verdict could be trusted, or none can be given."""

from __future__ import annotations


class CanaryError(RuntimeError):
    """A sample with a known result was graded otherwise: no verdict of this run can be trusted."""


class GraderError(RuntimeError):
    """The grading processes do not start."""
