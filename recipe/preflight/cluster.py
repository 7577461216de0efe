# SPDX-License-Identifier: Apache-2.0
"""R: the Ray that runs at [cluster] head, and what its nodes have in common."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterator

from recipe.preflight.catalogue import CannotTell, NoMatter, Said, bad, check, doubtful
from recipe.preflight.facts import Facts
from recipe.preflight.ray_facts import RayFacts, RayHost
from recipe.runfile.errors import ConfigError
from recipe.runfile.schema import CUDA

# Logs of several nodes are read side by side; Ray itself tolerates more.
MOST_SKEW_S = 5.0
SYNC = "run: python -m recipe sync on those nodes"


def _ray(facts: Facts) -> RayFacts:
    ray = facts.ray
    if ray is not None and ray.failed:
        raise CannotTell(ray.failed)
    if ray is None or ray.problem:
        raise CannotTell("no Ray answers (R001)")
    return ray


def _asked(facts: Facts) -> list[RayHost]:
    """The nodes that answered; those that did not are R001's."""
    return [one for one in _ray(facts).nodes if not one.problem]


def _usual(nodes: list[RayHost], of: Callable[[RayHost], str]) -> tuple[str, dict[str, list[RayHost]]]:
    """What most nodes have, and the nodes that have something else, by what that is."""
    if not nodes:
        raise CannotTell("no node answered (R001)")
    usual = Counter(map(of, nodes)).most_common(1)[0][0]
    others: dict[str, list[RayHost]] = {}
    for one in nodes:
        if of(one) != usual:
            others.setdefault(of(one), []).append(one)
    return usual, others


def _named(nodes: list[RayHost]) -> str:
    shown = ", ".join(one.address for one in nodes[:4])
    return shown + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")


def _resource(facts: Facts) -> str:
    return "GPU" if facts.device == CUDA else "NPU"


@check(
    "R001", "the Ray at the head answers, and every node of it does", needs="cluster",
    why="a node that is counted and does not work holds up the first placement for ever",
    fix="start it with scripts/launch.sh, or correct [cluster] head and ray_port; a Ray with tokens answers those who "
        "have its token (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)",
)  # fmt: skip
def _answers(facts: Facts) -> Iterator[Said]:
    ray = facts.ray
    if ray is None:
        raise CannotTell("Ray was not asked")
    if ray.failed:
        raise CannotTell(ray.failed)
    if ray.problem:
        yield bad(f"{facts.ray_address}: {ray.problem}", "a Ray that answers")
    for one in ray.nodes:
        if one.problem:
            yield bad(f"node {one.address}: {one.problem}", "a node that answers")


@check(
    "R002", "all nodes have joined, and no others", needs="cluster",
    why="with too few the trainer waits for dies that never come; one too many gets ranks of another layout",
    fix="start scripts/launch.sh on the missing nodes; stop Ray on those that are too many",
)  # fmt: skip
def _joined(facts: Facts) -> Iterator[Said]:
    nodes, cluster = _ray(facts).nodes, facts.config.cluster
    if len(nodes) != cluster.nodes:
        there = {one.address for one in nodes} | {one.host for one in nodes}
        missing = [host for host in cluster.hosts if host not in there]
        names = f" (missing: {', '.join(missing)})" if missing else ""
        yield bad(f"{len(nodes)} nodes{names}", f"{cluster.nodes}")


@check(
    "R003", "every node offers its dies to Ray", needs="cluster",
    why="a Ray started without --resources has no NPU to place workers on",
    fix="start Ray by scripts/launch.sh, which offers [cluster] dies_per_node",
)  # fmt: skip
def _offered(facts: Facts) -> Iterator[Said]:
    name, wanted = _resource(facts), facts.config.cluster.dies_per_node
    for one in _ray(facts).nodes:
        there = one.resources.get(name, 0)
        if there != wanted:
            yield bad(f"node {one.address} offers {there:.10g} {name}", f"{wanted}")


@check(
    "R004", "all dies are free", needs="cluster",
    why="a job that holds some of them keeps the placement group of the run waiting, without an error",
    fix="wait for that job, or end it if it is yours: ray job list, ray list actors",
)  # fmt: skip
def _free(facts: Facts) -> Iterator[Said]:
    ray, name = _ray(facts), _resource(facts)
    offered = sum(one.resources.get(name, 0) for one in ray.nodes)
    free = (ray.available or {}).get(name, 0)
    if free < offered:
        yield bad(f"{free:.10g} of {offered:.10g} {name} are free", "all")


@check(
    "R005", "all nodes run the same Python and the same Ray", needs="cluster",
    why="Ray pickles between them; other minor versions fail in ways that name neither",
    fix="make the same environment on all nodes",
)  # fmt: skip
def _versions(facts: Facts) -> Iterator[Said]:
    usual, others = _usual(_asked(facts), lambda one: f"Python {one.python}, Ray {one.ray}")
    for version, nodes in others.items():
        yield bad(f"{version} on {_named(nodes)}", usual)
    own = f"Python {platform.python_version()}"
    if not usual.startswith(own + ","):
        yield doubtful(f"{own} here, {usual} there", "the same")


@check(
    "R006", "every node sees the run's files", needs="cluster",
    why="each rank reads model and checkpoint itself; a path that is not mounted on one node ends the run there",
    fix="mount or copy it on those nodes",
)  # fmt: skip
def _paths(facts: Facts) -> Iterator[Said]:
    for path in facts.shared_paths:
        without = [one for one in _asked(facts) if path in one.missing]
        if without:
            yield bad(f"{path} is not on {_named(without)}", "on every node")


@check(
    "R007", "the clocks of all nodes agree", needs="cluster",
    why="logs of many nodes are read side by side, and the order in them is then wrong",
    fix="start a time service on those nodes (chronyd, systemd-timesyncd)",
)  # fmt: skip
def _clocks(facts: Facts) -> Iterator[Said]:
    for one in _asked(facts):
        if abs(one.clock_offset_s) - one.clock_error_s > MOST_SKEW_S:
            yield doubtful(f"{one.address} is {one.clock_offset_s:+.2f} s off", f"within {MOST_SKEW_S:g} s")


@check(
    "R008", "all nodes have the same upstream sources", needs="cluster",
    why="a node with other sources, or without our line in verl, trains without the patches (verl#6674, #6135)",
    fix=SYNC,
)  # fmt: skip
def _sources(facts: Facts) -> Iterator[Said]:
    usual, others = _usual(_asked(facts), lambda one: one.upstream)
    for state, nodes in others.items():
        yield bad(f"{_short(state)} on {_named(nodes)}", f"{_short(usual)}, as on the other nodes")
    if usual == "not synced":
        yield bad(f"{facts.upstream} is not synced on any node", "the pinned sources on every node")


def _short(state: str) -> str:
    """The state of an upstream tree with the hash cut short."""
    *words, last = state.split()
    return " ".join([*words, last[:12]])


@check(
    "R009", "all nodes have the same packages", needs="cluster",
    why="two versions of torch_npu or transformers in one run differ in numbers before they differ in errors",
    fix="install the pinned requirements on those nodes",
)  # fmt: skip
def _packages(facts: Facts) -> Iterator[Said]:
    nodes = _asked(facts)
    for name in sorted({name for one in nodes for name in one.packages or {}}):
        usual, others = _usual(nodes, lambda one, name=name: str((one.packages or {}).get(name)))  # type: ignore[misc]
        for version, some in others.items():
            yield bad(f"{name} {version} on {_named(some)}", f"{name} {usual}, as on the other nodes")


@check(
    "R010", "Ray was started without settings of another job", needs="cluster",
    why="workers inherit the environment of the shell that started Ray; a VLLM_DP_SIZE there is what they get "
        "(vllm-ascend#8344)",
    fix="stop that Ray and start it by scripts/launch.sh, from a new shell",
)  # fmt: skip
def _environment(facts: Facts) -> Iterator[Said]:
    try:
        derived = facts.environment
    except ConfigError as error:
        raise CannotTell(str(error)) from None
    run_dependent = ("VERL_FILE_LOGGER_PATH",)
    for one in _asked(facts):
        for name, value in sorted((one.environ or {}).items()):
            if name in derived and name not in run_dependent and value != derived[name]:
                yield bad(f"{name}={value} on {one.address}", f"{name}={derived[name]}")


@check(
    "R011", "the head named in the run file is the Ray's head", needs="cluster",
    why="the trainer runs on the head and writes there what the run leaves",
    fix="correct [cluster] head",
)  # fmt: skip
def _head(facts: Facts) -> Iterator[Said]:
    cluster = facts.config.cluster
    if cluster.nodes == 1 or cluster.head is None:
        raise NoMatter
    names = {one.address for one in _ray(facts).nodes} | {one.host for one in _ray(facts).nodes}
    if cluster.head not in names:
        yield doubtful(
            f"[cluster] head = {cluster.head}, nodes {', '.join(sorted(filter(None, names)))}", "one of them"
        )
