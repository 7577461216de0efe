# SPDX-License-Identifier: Apache-2.0
"""Rules over a run's metrics that say when a training has gone wrong. Pure: no files, no processes, no clock.

`rule` says what a rule is, `rules` declares them, `history` is what they look at, `watch` feeds them step by step.
"""
