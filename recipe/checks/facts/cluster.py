# SPDX-License-Identifier: Apache-2.0
"""What a running Ray says of itself and of each of its nodes, asked in a process of its own with a deadline.

`python -m recipe.checks.facts.cluster` reads {"address", "paths", "packages", "upstream"} and prints the answer as
JSON. One small actor without resources is started on each node, asked, and ended; nothing else of that Ray is touched.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recipe.checks.crash import account, asks_to_stop
from recipe.checks.facts.child import answer_of

DEADLINE_S = 90
CONNECT_S = 5


@dataclass(frozen=True)
class RayHost:
    """One live node. `clock_offset_s`: its clock less ours, `clock_error_s` how far off that may be.

    `missing`: paths of the run that are not there. `packages`: installed versions, None where absent. `upstream`: what
    the upstream tree was synced for. `environ`: variables that steer vLLM, HCCL, Ray and verl, as its workers get them.
    `problem`: why it could not be asked; all but `address` and `resources` are then empty.
    """

    address: str
    resources: Mapping[str, float]
    host: str = ""
    python: str = ""
    ray: str = ""
    packages: Mapping[str, str | None] | None = None
    missing: tuple[str, ...] = ()
    upstream: str = ""
    environ: Mapping[str, str] | None = None
    clock_offset_s: float = 0.0
    clock_error_s: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class RayFacts:
    """A Ray: why it does not answer, or its nodes, and what is free in all. `failed`: why we could not even ask."""

    problem: str = ""
    nodes: tuple[RayHost, ...] = ()
    available: Mapping[str, float] | None = None
    failed: str = ""


def ask(
    address: str, paths: list[str], packages: list[str], upstream: Path, deadline_s: float = DEADLINE_S
) -> RayFacts:
    """The facts of the Ray at `address`.

    Args:
        address: ADDRESS:PORT.
        paths: those that every node should have.
        packages: distributions whose versions are asked for.
        upstream: where every node keeps the upstream sources.
        deadline_s: how long it may take.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except OSError as error:
        return RayFacts(f"nothing answers there ({error.strerror or error})")
    except UnicodeError:  # labels that are empty or longer than names may have
        return RayFacts(f"{host!r} is no name that a network has")
    question = {"address": address, "paths": paths, "packages": packages, "upstream": str(upstream)}
    answer = answer_of("recipe.checks.facts.cluster", question, deadline_s, without=("RAY_ADDRESS",))
    if "problem" in answer:
        return RayFacts(answer["problem"])
    nodes = tuple(RayHost(**{**node, "missing": tuple(node.get("missing", ()))}) for node in answer["nodes"])
    return RayFacts("", nodes, answer["available"])


def ask_safely(address: str, paths: list[str], packages: list[str], upstream: Path) -> RayFacts:
    """What the Ray at `address` says, or why we failed to ask it."""
    try:
        return ask(address, paths, packages, upstream)
    except BaseException as error:
        if asks_to_stop(error):
            raise
        return RayFacts(failed=account(error))


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        import ray
    except ModuleNotFoundError as error:
        return {"problem": f"the package {error.name} is not installed"}
    try:
        ray.init(question["address"], namespace="preflight", log_to_driver=False, configure_logging=False)
    except Exception as error:  # Ray raises whatever it meets on the way
        return {"problem": (str(error).strip().splitlines() or [type(error).__name__])[0]}
    alive = [node for node in ray.nodes() if node["Alive"]]
    # Before our own actors: they hold nothing, but Ray's books lag behind.
    available = ray.available_resources()
    nodes = [_of_node(ray, node, question) for node in alive]
    ray.shutdown()
    return {"nodes": nodes, "available": available}


def _of_node(ray: Any, node: dict[str, Any], question: dict[str, Any]) -> dict[str, Any]:
    import time

    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    known = {"address": node["NodeManagerAddress"], "resources": node["Resources"]}
    try:
        actor = ray.remote(num_cpus=0)(_probe()).options(scheduling_strategy=strategy).remote()
        answer: dict[str, Any] = ray.get(actor.look.remote(question), timeout=40)
        tries = []
        for _ in range(3):
            before = time.time()
            its_time = ray.get(actor.clock.remote(), timeout=10)
            after = time.time()
            tries.append(((after - before) / 2, its_time - (before + after) / 2))
        ray.kill(actor)
    except Exception as error:  # the node may die, or run another Python than ours
        return {**known, "problem": (str(error).strip().splitlines() or [type(error).__name__])[0]}
    error_s, offset_s = min(tries)
    return {**known, **answer, "clock_offset_s": offset_s, "clock_error_s": error_s}


def _probe() -> type:
    """A class that Ray sends by value: a node needs nothing of ours to run it."""

    class Probe:
        def clock(self) -> float:
            import time

            return time.time()

        def look(self, question: dict[str, Any]) -> dict[str, Any]:
            import hashlib
            import importlib.metadata
            import json
            import os
            import platform
            import socket

            import ray

            def version(package: str) -> str | None:
                try:
                    return importlib.metadata.version(package)
                except importlib.metadata.PackageNotFoundError:
                    return None

            try:
                with open(os.path.join(question["upstream"], "MANIFEST.json"), encoding="utf-8") as file:
                    manifest = json.load(file)
                made_of = manifest["pins"]
                if manifest.get("adopted"):  # the pins do not say what is there, and each node may keep it elsewhere
                    files = json.dumps(manifest["files"], sort_keys=True)
                    made_of = "adopted " + hashlib.sha256(files.encode()).hexdigest()
                upstream = f"{manifest['profile']} {manifest['state']} {made_of}"
            except (OSError, ValueError, KeyError):
                upstream = "not synced"
            prefixes = ("VLLM_", "HCCL_", "VERL_", "RECIPE_DP_")
            return {
                "host": socket.gethostname(),
                "python": platform.python_version(),
                "ray": ray.__version__,
                "packages": {name: version(name) for name in question["packages"]},
                "missing": [path for path in question["paths"] if not os.path.exists(path)],
                "upstream": upstream,
                "environ": {name: value for name, value in os.environ.items() if name.startswith(prefixes)},
            }

    return Probe


if __name__ == "__main__":
    print(json.dumps(_answer(json.load(sys.stdin))))
