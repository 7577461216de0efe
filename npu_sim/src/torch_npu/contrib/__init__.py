# SPDX-License-Identifier: Apache-2.0
"""Opt-in helpers; each acts when its module is imported."""
