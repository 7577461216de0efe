# SPDX-License-Identifier: Apache-2.0
"""What torch says of this node's dies, their names and memory, asked in a process of its own with a deadline.

`python -m recipe.checks.facts.dies` reads the device and prints the answer as JSON. It has a context on every die for
as long as that takes, and allocates nothing.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any

from recipe.checks.crash import account, asks_to_stop
from recipe.checks.facts.child import answer_of
from recipe.runfile.schema import NPU, identified
from recipe.sizes import size_text

DEADLINE_S = 180  # a cold torch_npu on shared storage, and a context on each of 16 dies


@dataclass(frozen=True)
class DieFacts:
    """The dies that torch sees, or why it cannot be asked.

    Attributes:
        totals: bytes of each.
        name: what torch calls the first; "" for simulated ones, which are no hardware.
        problem: why torch says nothing.
        failed: why we could not even try.
    """

    totals: tuple[int, ...] = ()
    name: str = ""
    problem: str = ""
    failed: str = ""

    @property
    def untold(self) -> str:
        """Why there are no dies to look at; "" where there are."""
        return self.failed or self.problem

    @property
    def hardware(self) -> str | None:
        """The key of `HARDWARE` that these dies are; None where no hardware there is known to have such."""
        return identified(self.name, min(self.totals)) if self.totals and self.name else None

    @property
    def text(self) -> str:
        """What they are, for a person."""
        return f"{len(self.totals)} x {self.name or 'simulated die'} of {size_text(min(self.totals))}"


def ask(device: str, deadline_s: float = DEADLINE_S) -> DieFacts:
    """The facts of this node's dies of a device, one of `recipe.runfile.schema.DEVICES`."""
    answer = answer_of("recipe.checks.facts.dies", device, deadline_s)
    if "problem" in answer:
        return DieFacts(problem=answer["problem"])
    return DieFacts(tuple(answer["totals"]), answer["name"])


def ask_safely(device: str) -> DieFacts:
    """What torch says, or why we failed to ask it."""
    try:
        return ask(device)
    except BaseException as error:
        if asks_to_stop(error):
            raise
        return DieFacts(failed=account(error))


def _answer(device: str) -> dict[str, Any]:
    try:
        import torch

        if device == NPU:
            import torch_npu  # which is torch.npu
    except ImportError as error:
        return {"problem": str(error)}
    runtime = torch.npu if device == NPU else torch.cuda
    # `get_device_properties` of torch_npu 7.1.0 gives the current die's memory, whichever is asked for.
    totals = [runtime.mem_get_info(number)[1] for number in range(runtime.device_count())]
    if not totals:
        return {"problem": "it sees none"}
    simulated = device == NPU and hasattr(torch_npu, "_sim")
    return {"totals": totals, "name": "" if simulated else runtime.get_device_name(0)}


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
