# SPDX-License-Identifier: Apache-2.0
"""The one line that is put into an upstream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.sources import pins, prelude
from recipe.sources.errors import SourcesError

WORKER = (
    "import os\nfrom omegaconf import X\n\ntry:\n    from mindspeed import repatch\nexcept ImportError:\n    pass\n"
)
PRELUDE = pins.Prelude(
    "alpha/worker.py", "from omegaconf import X", "    from mindspeed import repatch", "from ours import prelude"
)


def test_prelude_insertion_is_idempotent():
    once = prelude.insert(WORKER, PRELUDE)
    assert once.split("\n")[1:3] == ["from omegaconf import X", "from ours import prelude"]
    assert prelude.insert(once, PRELUDE) == once and once.replace("from ours import prelude\n", "") == WORKER


@pytest.mark.parametrize(
    "text",
    [
        WORKER.replace("from omegaconf import X", "from omegaconf import X, Y"),
        WORKER.replace("    from mindspeed", "    from mindspeed_rl"),
        WORKER + "from omegaconf import X\n",
        "\n".join(reversed(WORKER.split("\n"))),
    ],
)
def test_prelude_without_its_anchor_is_an_error(checkout, text):
    with pytest.raises(SourcesError, match=r"alpha/worker\.py"):
        prelude.insert(text, PRELUDE)
    checkout.wheel({"alpha/worker.py": text, "alpha-1.0.dist-info/METADATA": "Name: alpha\nVersion: 1.0\n"})
    checkout.pin()
    assert "alpha/worker.py" in checkout.fails()


@given(st.lists(st.sampled_from(["x = 1", "", "# y", "import z"]), max_size=8))
def test_prelude_changes_nothing_else(noise):
    text = "\n".join([*noise, WORKER, *noise])
    lines = prelude.insert(text, PRELUDE).split("\n")
    lines.remove(PRELUDE.line)
    assert "\n".join(lines) == text
