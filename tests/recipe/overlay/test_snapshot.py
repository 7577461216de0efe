# SPDX-License-Identifier: Apache-2.0
"""Processes that should be alike are compared, and the odd one out is named."""

from __future__ import annotations

import copy
import json

from recipe.overlay import compare


def process(pid: int, role: str = "WorkerDict") -> dict:
    return {
        "host": "node-a", "pid": pid, "role": f"{role} rank={pid}",
        "patches": {"p:one": {"status": "applied", "fingerprint": "sha256:1", "reason": ""},
                    "p:two": {"status": "skipped", "fingerprint": "", "reason": "not here"}},
        "upstreams": {"verl==0.6.1": "0.6.1"},
    }  # fmt: skip


def test_equal_processes_do_not_differ():
    assert compare([process(pid) for pid in range(4)]) == []
    assert compare([process(0)]) == [] and compare([]) == []


def test_the_odd_one_out_is_named():
    some = [process(pid) for pid in range(4)]
    del some[2]["patches"]["p:one"]
    some[3]["patches"]["p:two"] = {"status": "applied", "fingerprint": "sha256:2", "reason": ""}
    some[1]["upstreams"]["verl==0.6.1"] = "0.7.0"
    assert compare(some) == [
        "patch p:one: not there in WorkerDict rank=2 (host node-a, pid 2); applied sha256:1 in 3 of 4 processes",
        "patch p:two: applied sha256:2 in WorkerDict rank=3 (host node-a, pid 3); "
        "skipped (not here) in 3 of 4 processes",
        "upstream verl==0.6.1: 0.7.0 in WorkerDict rank=1 (host node-a, pid 1); 0.6.1 in 3 of 4 processes",
    ]


def test_many_are_counted_and_the_majority_is_right():
    some = [process(pid) for pid in range(256)]
    for state in some[:100]:
        state["patches"]["p:one"] = copy.deepcopy(state["patches"]["p:one"]) | {"fingerprint": "sha256:old"}
    (line,) = compare(some)
    assert "and 97 more" in line and "applied sha256:1 in 156 of 256 processes" in line


def test_snapshot_of_a_process(world):
    world.mirror(
        "mod.py",
        "off = Condition(lambda: False, otherwise='not here')",
        world.decl("fake.mod:f", "def f(original, x): return 0"),
        world.decl("fake.mod:A.m", "def m(original, self, x): return 0", when="off"),
    )
    world.upstream("never.py", "def g(): pass\n")
    world.mirror("never.py", world.decl("fake.never:g", "def g(original): pass"))
    out = world.ok("import json, fake_patches.prelude, fake.mod, fake_patches.never\n"
                   "from recipe.overlay import snapshot\nprint(json.dumps(snapshot()))")  # fmt: skip
    state = json.loads(out)
    assert state["patches"]["fake_patches.mod:f"]["status"] == "applied"
    assert state["patches"]["fake_patches.mod:f"]["fingerprint"] == world.fingerprint("fake.mod:f")
    assert state["patches"]["fake_patches.mod:m"] == {"status": "skipped", "fingerprint": "", "reason": "not here"}
    assert state["upstreams"] == {"fake==1": ""} and state["pid"] > 1 and state["host"]
