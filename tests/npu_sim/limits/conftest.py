# SPDX-License-Identifier: Apache-2.0
"""The strict level for one test."""

from collections.abc import Callable, Iterator

import pytest
from torch_npu.limits import Level, level, set_level


@pytest.fixture
def at_level() -> Iterator[Callable[[Level], None]]:
    """Set the level of this process; the one before returns with the test's end."""
    before = level()
    yield set_level
    set_level(before)
