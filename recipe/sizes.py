# SPDX-License-Identifier: Apache-2.0
"""Sizes in bytes as text."""

from __future__ import annotations

# Memory has units of powers of 1024, up to GiB, in which dies are sold; files and disks those of powers of 1000.
_UNITS = {1024: ("B", "KiB", "MiB", "GiB"), 1000: ("B", "kB", "MB", "GB", "TB", "PB")}


def size_text(size: float, digits: int = 1, base: int = 1024) -> str:
    """Bytes in the largest unit that leaves a number of at least 1.

    Args:
        size: in bytes.
        digits: number of digits after the point.
        base: 1024 for memory, 1000 for files and what a disk gives in a second.

    >>> size_text(69_120), size_text(22 * 2**30), size_text(9.4e12, base=1000)
    ('67.5 KiB', '22.0 GiB', '9.4 TB')
    """
    units = _UNITS[base]
    power = 0
    while size >= base and power < len(units) - 1:
        size, power = size / base, power + 1
    return f"{size:.{digits if power else 0}f} {units[power]}"


def told_apart(left: float, right: float) -> tuple[str, str]:
    """Two sizes as texts that differ where the sizes differ: "9.98 GiB" and "10.02 GiB", not "10.0 GiB" twice.

    >>> told_apart(5 * 2**20, 30 * 2**30), told_apart(9.98 * 2**30, 10.02 * 2**30)
    (('5.0 MiB', '30.0 GiB'), ('9.98 GiB', '10.02 GiB'))
    """
    for digits in range(1, 4):
        texts = size_text(left, digits), size_text(right, digits)
        if texts[0] != texts[1]:
            return texts
    return f"{left:.0f} B", f"{right:.0f} B"
