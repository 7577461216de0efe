# SPDX-License-Identifier: Apache-2.0
"""docs/STRICTNESS.md, made from the table of limits: `python -m torch_npu.limits.page FILE` writes it."""

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from torch_npu.limits.fact import CallLimit, CollectiveTypes, Fact, OperatorTypes, TypeLimit
from torch_npu.limits.table import TABLE, types

_HEAD = """\
# What the simulated NPU refuses

With `NPU_SIM_STRICT=1` the simulator refuses the calls that, by a document or by the source of the pinned versions,
an NPU does not take. `NPU_SIM_STRICT=float32` does the same, but lets float32 pass where a fused operator takes half
types only (marked *), for comparisons with a reference. Without it (`0`) these calls are computed: the tiny model of
the quick start has head sizes that no NPU takes. Each process says its level in one line on stderr.

A refusal is one line: operator, argument, what was found, what is taken, and where that is written. Some rows only
warn, once per process: those that are expected from how the hardware works but were found in no document, and those
that a document has but a pinned upstream breaks on real NPUs or a later source of CANN lifts. Nothing here was tried on
an NPU. The rows are for the Atlas A3; where a page gives other numbers for the A2, those of the A3 count, but where a
row names both: there `NPU_SIM_DIE=a2` chooses.

This page is made from `npu_sim/src/torch_npu/limits/` by `python -m torch_npu.limits.page docs/STRICTNESS.md`; tests
check that it is current, that every row is refused, and that a call inside all limits of an operator is not.
"""

_WITHOUT = """\
## Fused operators without a row

These were looked up too. What their documents ask for, the operators check at every level, or nothing was found:
"""


def text() -> str:
    """The page."""
    parts = [_HEAD]
    fused = [fact for fact in TABLE if not isinstance(fact, TypeLimit)]
    for operator, facts in groupby(fused, key=lambda fact: fact.operator):
        rows = "\n".join(_row(fact) for fact in facts)
        parts.append(f"## {operator}\n\n| argument | taken | source |\n|---|---|---|\n{rows}\n")
    parts.append(f"{_WITHOUT}{', '.join(f'`{name}`' for name in _without_rows())}.\n")
    for title, kind in (("Operators of torch", OperatorTypes), ("HCCL", CollectiveTypes)):
        rows = "\n".join(_merged([fact for fact in types() if isinstance(fact, kind)]))
        parts.append(f"## {title}\n\n| operators | argument | taken | source |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _merged(facts: list[TypeLimit]) -> Iterator[str]:
    """One row for the operators of which the same is documented."""
    for (argument, documented, source), same in groupby(facts, key=lambda f: (f.argument, f.documented, f.source)):
        operators = ", ".join(f"`{fact.operator.removeprefix('aten::').removeprefix('hccl ')}`" for fact in same)
        yield f"| {operators} | {argument} | {documented} | {source} |"


def _row(fact: Fact) -> str:
    arguments = ", ".join(f"`{name}`" for name in fact.argument.split(", "))
    mark = " *" if isinstance(fact, CallLimit) and fact.half_types_only else ""
    source = str(fact.source) if fact.source else "expected, found in no document: only warns"
    against = f"; only warns, for {fact.contradiction}" if fact.contradiction else ""
    return f"| {arguments} | {fact.documented}{mark} | {source}{against} |"


def _without_rows() -> list[str]:
    from torch_npu.ops import ATB, PUBLIC, mindspeed_jit

    compiled = {name for build in mindspeed_jit.MODULES.values() for name in vars(build())} - set(PUBLIC)
    names = {*PUBLIC, *(f"atb.{name}" for name in ATB), *(f"mindspeed.{name}" for name in compiled)}
    return sorted(names - {fact.operator for fact in TABLE})


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("name the file to write, as in: python -m torch_npu.limits.page docs/STRICTNESS.md")
    Path(sys.argv[1]).write_text(text(), encoding="utf-8")
