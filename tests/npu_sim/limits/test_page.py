# SPDX-License-Identifier: Apache-2.0
"""docs/STRICTNESS.md is the table of limits."""

from pathlib import Path

from torch_npu.limits.page import text

REPO = Path(__file__).resolve().parents[3]


def test_the_page_is_current() -> None:
    assert (REPO / "docs" / "STRICTNESS.md").read_text(encoding="utf-8") == text()
