# SPDX-License-Identifier: Apache-2.0
"""A laptop for the checks that doctor makes: nothing is wrong with it until a test makes it ill."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from recipe.checks.facts.machine import Machine, this_machine
from recipe.checks.facts.packages import requirements
from recipe.doctor import Diagnosis, diagnose
from recipe.runfile.paths import upstream_dir

REPO = Path(__file__).resolve().parents[3]
GIB = 2**30


class Patient:
    """A laptop with nothing wrong; methods make it ill."""

    def __init__(self, root: Path) -> None:
        self.runs = root / "runs"
        self.upstream = upstream_dir()
        self.machine: Machine = replace(
            this_machine(),
            python=(3, 11, 9),
            packages={**requirements(REPO / "requirements-sim.txt", (3, 11)), "npu-sim": "0.1.0"},
            environ={"PATH": "/usr/bin"},
            memory=24 * GIB,
            memory_available=20 * GIB,
            shm_free=12 * GIB,
            limits={"nofile": 20000, "nproc": None, "memlock": None},
            dies=0,
            gpus=0,
            driver=None,
            interfaces={"lo": "127.0.0.1"},
            listening=frozenset({22}),
            ephemeral_ports=(32768, 60999),
            clock_set=True,
            processes=(),
            path=(),
            free_bytes=lambda path: 500 * GIB,
        )

    def set(self, **values: Any) -> None:
        self.machine = replace(self.machine, **values)

    def environ(self, **values: str) -> None:
        self.set(environ={**self.machine.environ, **values})

    def npu(self) -> None:
        self.set(dies=16, environ={**self.machine.environ, "ASCEND_HOME_PATH": "/"}, packages={"torch-npu": "2.5.1"})

    def failed_run(self, line: str, status: str = "failed") -> None:
        logs = self.runs / "sick" / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "driver.log").write_text(f"step 1\n{line}\nTraceback follows\n")
        (self.runs / "sick" / "result.json").write_text(json.dumps({"status": status}))

    def sources(self, **files: str) -> None:
        """A tree of the real sources with some files replaced, "a/b.py" by the name a__b.py."""
        tree = self.runs.parent / "tree"
        tree.mkdir()
        replaced = {name.replace("__", "/").replace("_py", ".py").replace("_json", ".json"): text
                    for name, text in files.items()}  # fmt: skip
        _mirror(self.upstream, tree, replaced)
        self.upstream = tree

    def diagnosis(self) -> Diagnosis:
        return diagnose(machine=self.machine, upstream=self.upstream, repo=REPO, runs=self.runs)


def _mirror(source: Path, target: Path, replaced: dict[str, str]) -> None:
    """Links to everything in `source`, except for the files replaced and the directories on the way to them."""
    for entry in source.iterdir():
        below = {name.partition("/")[2]: text for name, text in replaced.items() if name.split("/")[0] == entry.name}
        if "" in below:
            (target / entry.name).write_text(below[""])
        elif below:
            (target / entry.name).mkdir()
            _mirror(entry, target / entry.name, below)
        else:
            (target / entry.name).symlink_to(entry)
