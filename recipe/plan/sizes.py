# SPDX-License-Identifier: Apache-2.0
"""How sizes are written."""

from __future__ import annotations


def size_text(size: float) -> str:
    """Bytes in a unit that leaves three digits.

    >>> size_text(69_120), size_text(22 * 2**30)
    ('67.5 KiB', '22.0 GiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
