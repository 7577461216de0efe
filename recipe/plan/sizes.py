# SPDX-License-Identifier: Apache-2.0
"""How sizes are written."""

from __future__ import annotations


def size_text(size: float, digits: int = 1) -> str:
    """Bytes in a unit that leaves three digits before the point, and so many after it.

    >>> size_text(69_120), size_text(22 * 2**30)
    ('67.5 KiB', '22.0 GiB')
    """
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.{digits}f} {unit}"
        size /= 1024
    return f"{size:.{digits}f} GiB"


def told_apart(one: float, other: float) -> tuple[str, str]:
    """Two sizes in texts that differ wherever the sizes do: "9.98 GiB" beside "10.02 GiB", and not "10.0 GiB" twice.

    >>> told_apart(5 * 2**20, 30 * 2**30), told_apart(9.98 * 2**30, 10.02 * 2**30)
    (('5.0 MiB', '30.0 GiB'), ('9.98 GiB', '10.02 GiB'))
    """
    for digits in range(1, 4):
        texts = size_text(one, digits), size_text(other, digits)
        if texts[0] != texts[1]:
            return texts
    return f"{one:.0f} B", f"{other:.0f} B"
