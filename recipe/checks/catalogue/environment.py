# SPDX-License-Identifier: Apache-2.0
"""E: variables of this shell, and of [environment], that would change a run without a word in its file."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from recipe.checks.declaration import check
from recipe.checks.facts.run import Facts
from recipe.checks.finding import Complaint, NoMatter, bad, doubtful
from recipe.runfile.errors import ConfigError
from recipe.runfile.inherited import FOREIGN_NAMES, FOREIGN_PREFIXES
from recipe.runfile.schema import CUDA, NPU, SIM

# Set by published launch scripts, and read by nothing in the pinned sources.
UNREAD = ("VLLM_ENABLE_MC2", "VLLM_ENABLE_FIX_ROUTE", "VLLM_ASCEND_ACL_OP_INIT_MODE", "VLLM_ENABLE_GRAPH_MODE")
# Torch's distributed workers get theirs from verl; one left over from torchrun is believed.
RANKS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
# Each of them makes every operator wait for the one before, or writes about it.
DEBUGGING = {
    "ASCEND_LAUNCH_BLOCKING": "1",
    "CUDA_LAUNCH_BLOCKING": "1",
    "VLLM_ASCEND_MODEL_EXECUTE_TIME_OBSERVE": "1",
    "TORCH_DISTRIBUTED_DEBUG": "DETAIL",
    "ASCEND_GLOBAL_LOG_LEVEL": "0",
}
INTERFACES = ("HCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME", "TP_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
# Settled by checks of their own.
_OTHERS = {*UNREAD, *RANKS, *INTERFACES, *DEBUGGING, "ASCEND_RT_VISIBLE_DEVICES", "RAY_ADDRESS"}


def stale(environ: Mapping[str, str]) -> list[str]:
    """Variables of another job's that steer vLLM, HCCL, Ray or verl."""
    return sorted(
        name
        for name in environ
        if (name.startswith(FOREIGN_PREFIXES) or name in FOREIGN_NAMES) and name not in _OTHERS and "NOSET" not in name
    )


@check(
    "E001", "expandable segments and sleep mode are not both on", needs="static",
    why="vLLM's sleep mode allocates from a memory pool, which torch refuses with expandable segments; on NPUs our "
        "rollout runs without sleep mode, on CUDA verl's own runs with it",
    fix="remove expandable_segments:True from PYTORCH_CUDA_ALLOC_CONF",
)  # fmt: skip
def _expandable(facts: Facts) -> Iterator[Complaint]:
    if facts.device != CUDA:
        raise NoMatter
    variables = {**facts.machine.environ, **facts.config.environment} if facts.node else facts.config.environment
    value = variables.get("PYTORCH_CUDA_ALLOC_CONF", "")
    if "expandable_segments:true" in value.lower().replace(" ", ""):
        yield bad(f"PYTORCH_CUDA_ALLOC_CONF={value} and a rollout with sleep mode", "segments that do not expand")


@check(
    "E002", "no variables of another job are left in the shell", needs="node", any_run=True,
    why="a VLLM_DP_SIZE, HCCL port or Ray setting of an earlier job changes what the libraries do (vllm-ascend#8344); "
        "the launcher drops or replaces them, a Ray started by hand takes them over",
    fix="open a new shell, or unset them",
)  # fmt: skip
def _stale(facts: Facts) -> Iterator[Complaint]:
    names = stale(facts.machine.environ)
    if names:
        shown = ", ".join(f"{name}={facts.machine.environ[name][:40]}" for name in names)
        yield doubtful(shown, "none of them", f"run: unset {' '.join(names)}")


@check(
    "E003", "no rank of another job is left in the shell", needs="node", any_run=True,
    why="torch.distributed believes RANK and WORLD_SIZE; with torchrun's values the processes wait for others for ever",
    fix="run: unset " + " ".join(RANKS),
)  # fmt: skip
def _ranks(facts: Facts) -> Iterator[Complaint]:
    ranks = [name for name in RANKS if name in facts.machine.environ]
    if ranks:
        yield doubtful(", ".join(f"{name}={facts.machine.environ[name]}" for name in ranks), "none of them")


@check(
    "E004", "the shell does not hide dies of this node", needs="node", any_run=True,
    why="a process that sees fewer dies than Ray counts gets ranks beyond its devices",
    fix="run: unset ASCEND_RT_VISIBLE_DEVICES",
)  # fmt: skip
def _visible(facts: Facts) -> Iterator[Complaint]:
    value = facts.machine.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if value is None or facts.device == CUDA:
        return
    seen = len([part for part in value.split(",") if part.strip()])
    if seen < facts.config.cluster.dies_per_node:
        yield bad(
            f"ASCEND_RT_VISIBLE_DEVICES={value} shows {seen} dies",
            f"all {facts.config.cluster.dies_per_node}, chosen by Ray for each worker",
        )


@check(
    "E005", "Ray sets each worker's devices", needs="node",
    why="with RAY_EXPERIMENTAL_NOSET_... every worker sees all dies, and verl 0.6.1's LOCAL_RANK runs out of bounds "
        "(verl#5152)",
    fix="unset the variable",
)  # fmt: skip
def _noset(facts: Facts) -> Iterator[Complaint]:
    variables = {**facts.machine.environ, **facts.config.environment}
    for name in sorted(variables):
        if name.startswith("RAY_EXPERIMENTAL_NOSET_") and variables[name] not in ("", "0"):
            yield bad(f"{name}={variables[name]}", "not set", f"run: unset {name}")


@check(
    "E006", "the shell names no other Ray", needs="node", any_run=True,
    why="with RAY_ADDRESS a driver joins that cluster, whatever the run file says",
    fix="run: unset RAY_ADDRESS",
)  # fmt: skip
def _ray_address(facts: Facts) -> Iterator[Complaint]:
    value = facts.machine.environ.get("RAY_ADDRESS")
    if value:
        yield doubtful(f"RAY_ADDRESS={value}", "not set; the launcher starts a Ray of its own")


@check(
    "E007", "no proxy stands between the nodes", needs="node",
    why="gRPC, which Ray speaks, sends what a proxy variable names through the proxy; nodes then never find the head",
    fix="add the head's address to no_proxy (and NO_PROXY), or unset the proxy",
)  # fmt: skip
def _proxy(facts: Facts) -> Iterator[Complaint]:
    environ, head = facts.machine.environ, facts.config.cluster.head
    if head is None or facts.config.cluster.nodes == 1:
        raise NoMatter
    named = [
        name for name in ("grpc_proxy", "https_proxy", "http_proxy", "HTTPS_PROXY", "HTTP_PROXY") if name in environ
    ]
    spared = ",".join(environ.get(name, "") for name in ("no_grpc_proxy", "no_proxy", "NO_PROXY"))
    if named and head not in spared.split(",") and "*" not in spared:
        yield doubtful(f"{', '.join(named)} set, {head} not in no_proxy", "the head reached without a proxy")


@check(
    "E008", "the network interface between the nodes exists here, with an address", needs="node",
    why="HCCL, gloo and vLLM bind to the interface they are told; with a wrong name each of them fails after minutes",
    fix="set [cluster] interface to one of this machine's, or remove it and have it found",
)  # fmt: skip
def _interface(facts: Facts) -> Iterator[Complaint]:
    known = {name: address for name, address in facts.machine.interfaces.items() if address}
    inherited = {name: facts.machine.environ[name] for name in INTERFACES if facts.machine.environ.get(name)}
    configured = facts.config.cluster.interface
    wanted = {"[cluster] interface": configured} if configured else inherited
    for source, value in wanted.items():
        names = [name.strip("=^") for name in str(value).split(",")]
        if not any(interface.startswith(name) for name in names for interface in known):
            yield bad(f"{source} = {value}", "one of " + ", ".join(f"{n} ({a})" for n, a in known.items()))
        elif names == ["lo"] and facts.config.cluster.nodes > 1 and facts.device != SIM:
            yield bad(f"{source} = {value} for {facts.config.cluster.nodes} nodes", "an interface to the other nodes")


@check(
    "E009", "no variable is set that nothing reads", needs="node", any_run=True,
    why="published launch scripts set switches that no pinned source reads: what they promise does not happen",
    fix="remove it; graph mode is [rollout] graph_mode",
)  # fmt: skip
def _unread(facts: Facts) -> Iterator[Complaint]:
    variables = {**facts.machine.environ, **facts.config.environment}
    unread = [name for name in UNREAD if name in variables]
    if unread:
        yield doubtful(", ".join(unread), "no such variable")


@check(
    "E010", "CANN's environment is loaded", needs="node", any_run=True,
    why="without it torch_npu finds no libascendcl.so and verl takes the machine for one without devices",
    fix="run: source /usr/local/Ascend/ascend-toolkit/set_env.sh && source /usr/local/Ascend/nnal/atb/set_env.sh",
)  # fmt: skip
def _cann(facts: Facts) -> Iterator[Complaint]:
    if facts.device != NPU:
        raise NoMatter
    home = facts.machine.environ.get("ASCEND_HOME_PATH") or facts.machine.environ.get("ASCEND_TOOLKIT_HOME")
    if not home:
        yield bad("neither ASCEND_HOME_PATH nor ASCEND_TOOLKIT_HOME is set", "CANN's set_env.sh sourced")
    elif not Path(home).is_dir():
        yield bad(f"ASCEND_HOME_PATH={home} is not there", "the directory of the CANN toolkit")


@check(
    "E011", "no switch for debugging is on", needs="node", any_run=True,
    why="they make every operator wait for the one before, or write a line about it",
    fix="unset it once the fault is found",
)  # fmt: skip
def _debugging(facts: Facts) -> Iterator[Complaint]:
    variables = {**facts.machine.environ, **facts.config.environment}
    switches = [f"{name}={variables[name]}" for name, on in DEBUGGING.items() if variables.get(name) == on]
    if switches:
        yield doubtful(", ".join(switches), "off")


@check(
    "E012", "no rank table of another job is named", needs="node", any_run=True,
    why="HCCL takes the cluster from RANK_TABLE_FILE instead of from the processes that meet",
    fix="run: unset RANK_TABLE_FILE",
)  # fmt: skip
def _rank_table(facts: Facts) -> Iterator[Complaint]:
    for name in ("RANK_TABLE_FILE", "RANKTABLEFILE"):
        if facts.machine.environ.get(name):
            yield bad(f"{name}={facts.machine.environ[name]}", "not set")


@check(
    "E013", "libraries that are loaded first are there", needs="node", any_run=True,
    why="a missing file in LD_PRELOAD is a line on stderr of every process, and no allocator",
    fix="correct or unset LD_PRELOAD",
)  # fmt: skip
def _preload(facts: Facts) -> Iterator[Complaint]:
    value = facts.machine.environ.get("LD_PRELOAD", "")
    for file in value.replace(":", " ").split():
        if os.sep in file and not Path(file).exists():
            yield doubtful(f"LD_PRELOAD names {file}, which is not there", "files that exist")


@check(
    "E014", "torch loads its device backend", needs="node", any_run=True,
    why="with TORCH_DEVICE_BACKEND_AUTOLOAD=0 torch_npu is never loaded, and verl trains on the CPU",
    fix="run: unset TORCH_DEVICE_BACKEND_AUTOLOAD",
)  # fmt: skip
def _autoload(facts: Facts) -> Iterator[Complaint]:
    if facts.config.environment.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0":
        yield bad("[environment] TORCH_DEVICE_BACKEND_AUTOLOAD = 0", "not set", "remove it from [environment]")
    elif facts.machine.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD") == "0" and facts.device != CUDA:
        yield doubtful("TORCH_DEVICE_BACKEND_AUTOLOAD=0", "not set; the launcher drops it")


@check(
    "E015", "[environment] adds to what is derived and overrides none of it", needs="static", stops_derivation=True,
    why="VLLM_DP_SIZE and its kin follow from the layout; a second value somewhere is how they came to differ "
        "(vllm-ascend#8344)",
    fix="remove it from [environment], and set what it follows from",
)  # fmt: skip
def _environment(facts: Facts) -> Iterator[Complaint]:
    try:
        _ = facts.environment
    except ConfigError as error:
        yield bad(str(error), "variables that are not derived from the run file")
