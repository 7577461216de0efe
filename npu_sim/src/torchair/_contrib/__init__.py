# SPDX-License-Identifier: Apache-2.0
"""Contributed operators."""

from . import custom_torch_ops

__all__ = ["custom_torch_ops"]
