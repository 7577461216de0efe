# SPDX-License-Identifier: Apache-2.0
"""A step of a run at its true size on one die of each pipeline stage, without contents: what it takes, counted."""
