# SPDX-License-Identifier: Apache-2.0
"""R: the Ray that runs at [cluster] head, and what its nodes have in common."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from recipe.checks.declaration import check
from recipe.checks.facts.cluster import RayFacts, RayHost
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad, doubtful
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
    return [node for node in _ray(facts).nodes if not node.problem]


def _usual(nodes: list[RayHost], state: Callable[[RayHost], str]) -> tuple[str, dict[str, list[RayHost]]]:
    """The state of most nodes, and the nodes that are in another, by what that is."""
    if not nodes:
        raise CannotTell("no node answered (R001)")
    usual = Counter(map(state, nodes)).most_common(1)[0][0]
    others: dict[str, list[RayHost]] = {}
    for node in nodes:
        if state(node) != usual:
            others.setdefault(state(node), []).append(node)
    return usual, others


def _named(nodes: list[RayHost]) -> str:
    shown = ", ".join(node.address for node in nodes[:4])
    return shown + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")


def _names(nodes: Iterable[RayHost]) -> set[str]:
    """What the nodes may be called in a run file."""
    return {node.address for node in nodes} | {node.host for node in nodes}


def _resource(facts: Facts) -> str:
    return "GPU" if facts.device == CUDA else "NPU"


@check(
    "R001", "the Ray at the head answers, and every node of it does", needs="cluster",
    why="a node that is counted and does not work holds up the first placement for ever",
    fix="start it with scripts/launch.sh, or correct [cluster] head and ray_port; a Ray with tokens answers those who "
        "have its token (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH)",
)  # fmt: skip
def _answers(facts: Facts) -> Iterator[Complaint]:
    ray = facts.ray
    if ray is None:
        raise CannotTell("Ray was not asked")
    if ray.failed:
        raise CannotTell(ray.failed)
    if ray.problem:
        yield bad(f"{facts.ray_address}: {ray.problem}", "a Ray that answers")
    for node in ray.nodes:
        if node.problem:
            yield bad(f"node {node.address}: {node.problem}", "a node that answers")


@check(
    "R002", "all nodes have joined, and no others", needs="cluster",
    why="with too few the trainer waits for dies that never come; one too many gets ranks of another layout",
    fix="start scripts/launch.sh on the missing nodes; stop Ray on those that are too many",
)  # fmt: skip
def _joined(facts: Facts) -> Iterator[Complaint]:
    nodes, cluster = _ray(facts).nodes, facts.config.cluster
    if len(nodes) != cluster.nodes:
        missing = [host for host in cluster.hosts if host not in _names(nodes)]
        names = f" (missing: {', '.join(missing)})" if missing else ""
        yield bad(f"{len(nodes)} nodes{names}", f"{cluster.nodes}")


@check(
    "R003", "every node offers its dies to Ray", needs="cluster",
    why="a Ray started without --resources has no NPU to place workers on",
    fix="start Ray by scripts/launch.sh, which offers [cluster] dies_per_node",
)  # fmt: skip
def _offered(facts: Facts) -> Iterator[Complaint]:
    name, wanted = _resource(facts), facts.config.cluster.dies_per_node
    for node in _ray(facts).nodes:
        offered = node.resources.get(name, 0)
        if offered != wanted:
            yield bad(f"node {node.address} offers {offered:.10g} {name}", f"{wanted}")


@check(
    "R004", "all dies are free", needs="cluster",
    why="a job that holds some of them keeps the placement group of the run waiting, without an error",
    fix="wait for that job, or end it if it is yours: ray job list, ray list actors",
)  # fmt: skip
def _free(facts: Facts) -> Iterator[Complaint]:
    ray, name = _ray(facts), _resource(facts)
    offered = sum(node.resources.get(name, 0) for node in ray.nodes)
    free = (ray.available or {}).get(name, 0)
    if free < offered:
        yield bad(f"{free:.10g} of {offered:.10g} {name} are free", "all")


@check(
    "R005", "all nodes run the same Python and the same Ray", needs="cluster",
    why="Ray pickles between them; other minor versions fail in ways that name neither",
    fix="make the same environment on all nodes",
)  # fmt: skip
def _versions(facts: Facts) -> Iterator[Complaint]:
    usual, others = _usual(_asked(facts), lambda node: f"Python {node.python}, Ray {node.ray}")
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
def _paths(facts: Facts) -> Iterator[Complaint]:
    for path in facts.shared_paths:
        without = [node for node in _asked(facts) if path in node.missing]
        if without:
            yield bad(f"{path} is not on {_named(without)}", "on every node")


@check(
    "R007", "the clocks of all nodes agree", needs="cluster",
    why="logs of many nodes are read side by side, and the order in them is then wrong",
    fix="start a time service on those nodes (chronyd, systemd-timesyncd)",
)  # fmt: skip
def _clocks(facts: Facts) -> Iterator[Complaint]:
    for node in _asked(facts):
        if abs(node.clock_offset_s) - node.clock_error_s > MOST_SKEW_S:
            yield doubtful(f"{node.address} is {node.clock_offset_s:+.2f} s off", f"within {MOST_SKEW_S:g} s")


@check(
    "R008", "all nodes have the same upstream sources", needs="cluster",
    why="a node with other sources, or without our line in verl, trains without the patches (verl#6674, #6135)",
    fix=SYNC,
)  # fmt: skip
def _sources(facts: Facts) -> Iterator[Complaint]:
    usual, others = _usual(_asked(facts), lambda node: node.upstream)
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
def _packages(facts: Facts) -> Iterator[Complaint]:
    nodes = _asked(facts)
    for name in sorted({name for node in nodes for name in node.packages or {}}):
        usual, others = _usual(nodes, lambda node, name=name: str((node.packages or {}).get(name)))  # type: ignore[misc]
        for version, deviating in others.items():
            yield bad(f"{name} {version} on {_named(deviating)}", f"{name} {usual}, as on the other nodes")


@check(
    "R010", "Ray was started without settings of another job", needs="cluster",
    why="workers inherit the environment of the shell that started Ray; a VLLM_DP_SIZE there is what they get "
        "(vllm-ascend#8344)",
    fix="stop that Ray and start it by scripts/launch.sh, from a new shell",
)  # fmt: skip
def _environment(facts: Facts) -> Iterator[Complaint]:
    try:
        derived = facts.environment
    except ConfigError as error:
        raise CannotTell(str(error)) from None
    run_dependent = ("VERL_FILE_LOGGER_PATH",)
    for node in _asked(facts):
        for name, value in sorted((node.environ or {}).items()):
            if name in derived and name not in run_dependent and value != derived[name]:
                yield bad(f"{name}={value} on {node.address}", f"{name}={derived[name]}")


@check(
    "R011", "the head named in the run file is the Ray's head", needs="cluster",
    why="the trainer runs on the head and writes there what the run leaves",
    fix="correct [cluster] head",
)  # fmt: skip
def _head(facts: Facts) -> Iterator[Complaint]:
    cluster = facts.config.cluster
    if cluster.nodes == 1 or cluster.head is None:
        raise NoMatter
    names = _names(_ray(facts).nodes)
    if cluster.head not in names:
        yield doubtful(
            f"[cluster] head = {cluster.head}, nodes {', '.join(sorted(filter(None, names)))}", "one of them"
        )
