# SPDX-License-Identifier: Apache-2.0
"""X: what users of this stack keep reporting, each with the condition it comes from and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.checks.declaration import check
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad, doubtful
from recipe.runfile.schema import CUDA, NPU

SYNC = "run: python -m recipe sync"
ROLLOUT = "verl_patches.workers.rollout.base:sync_rollout"
CACHE_LAYOUT = "vllm_ascend_patches.attention.mla_v1:AscendMLAImpl"


def _patch_fits(facts: Facts, patch: str) -> Iterator[Complaint]:
    fit = facts.fits.get(patch)
    if fit is None:
        yield bad(f"there is no patch {patch}", "a checkout of the recipe that is whole", "run: git status")
    elif fit.verdict not in ("same", "pinned"):
        yield bad(fit.line.splitlines()[0], f"sources that the patch {patch} fits", SYNC)


def _logged(facts: Facts, pattern: str, expected: str, fix: str | None = None) -> Iterator[Complaint]:
    """The last line of the latest run's log that matches, where there is one."""
    line = facts.latest_run.logged(pattern)
    if line:
        yield bad(line, expected, fix)


@check(
    "X001", "the rollout's memory comes back without sleep mode", needs="runs",
    why="vLLM's sleep mode does not free its pool on NPUs of several nodes (vllm-ascend#977, #9563); our rollout runs "
        "without it and frees weights and cache itself, where its patch is in place",
    fix=SYNC,
)  # fmt: skip
def _sleep_mode(facts: Facts) -> Iterator[Complaint]:
    yield from _patch_fits(facts, ROLLOUT)
    pattern = r"Sleep mode (can only be|is not (supported|enabled))|used for one instance per process"
    yield from _logged(facts, pattern, "a rollout without sleep mode", "remove enable_sleep_mode from engine_kwargs")


@check(
    "X002", "no memory is held by what an earlier run left", needs="runs",
    why="workers that outlive their run keep dies and host memory, and the next run finds less than it was planned for "
        "(vllm-ascend#9585)",
    fix="look at those processes, and end those that are yours by their ids: kill PID",
)  # fmt: skip
def _residual(facts: Facts) -> Iterator[Complaint]:
    for leftover in facts.machine.left_by_runs():
        yield doubtful(leftover, "none, unless that run is going on")
    fix = "see python -m recipe plan RUN.toml; then lower memory_share, recompute, or use more dies"
    yield from _logged(facts, r"OutOfMemoryError|out of memory", "phases that fit into a die", fix)


@check(
    "X003", "the KV cache is written and read in one layout", needs="runs",
    why="weights and caches that come back in another layout give wrong tokens and no error (vllm-ascend#11548); our "
        "source patch makes prefill write what graph decode reads",
    fix=SYNC + " (it applies the source patches)",
)  # fmt: skip
def _layout(facts: Facts) -> Iterator[Complaint]:
    yield from _patch_fits(facts, CACHE_LAYOUT)


@check(
    "X004", "VLLM_DP_SIZE and its kin are nowhere typed by hand", needs="runs",
    why="they follow from the run file; a second value in a shell or a profile makes vLLM wait for ranks that do not "
        "exist (vllm-ascend#8344)",
    fix="run: unset the variable, and take it out of your profile",
)  # fmt: skip
def _dp_size(facts: Facts) -> Iterator[Complaint]:
    names = [name for name in sorted(facts.machine.environ) if name.startswith("VLLM_DP_")]
    if names:
        shown = ", ".join(f"{name}={facts.machine.environ[name]}" for name in names)
        yield bad(shown, "not set", f"run: unset {' '.join(names)}")


@check(
    "X005", "Ray gives each worker its own die", needs="runs",
    why="with RAY_EXPERIMENTAL_NOSET_... every worker sees all dies, and LOCAL_RANK runs out of bounds (verl#5152)",
    fix="run: unset the variable, and take it out of your profile",
)  # fmt: skip
def _noset(facts: Facts) -> Iterator[Complaint]:
    for name, value in sorted(facts.machine.environ.items()):
        if name.startswith("RAY_EXPERIMENTAL_NOSET_") and value not in ("", "0"):
            yield bad(f"{name}={value}", "not set", f"run: unset {name}")
    pattern = r"(?i)invalid device (ordinal|id)|LOCAL_RANK.*out of"
    yield from _logged(facts, pattern, "one die for each worker", "start Ray by scripts/launch.sh only")


@check(
    "X006", "every process of a run has the patches", needs="runs",
    why="patches that are missing in one process, or differ, train something else than the log says (verl#6674, #6135)",
    fix=SYNC + " on every node; start Ray by scripts/launch.sh only",
)  # fmt: skip
def _everywhere(facts: Facts) -> Iterator[Complaint]:
    from recipe.audit.run_status import read
    from recipe.overlay.errors import OverlayError
    from recipe.sources.pins import read_pins

    prelude = next(iter(read_pins(facts.repo / "upstreams.toml").profiles.values())).prelude
    file = facts.upstream / prelude.file
    if not file.is_file():
        raise CannotTell(f"{file} is not there; run: python -m recipe sync")
    if prelude.line not in file.read_text(encoding="utf-8").splitlines():
        yield bad(f"{file} lacks the line {prelude.line!r}", "the line that lays the patches over a worker")
    try:
        run = facts.latest_run.directory
        problems = read(run).problems()
    except (CannotTell, OverlayError):
        return
    for problem in problems[:5]:
        yield bad(f"{run.name}: {problem}", "the same patches in all processes of a kind")


@check(
    "X007", "HCCL's ports are free, and the kernel gives them to nobody else", needs="runs",
    why="HCCL listens on one port for each die, by default in the range of outgoing connections (vllm-ascend#405, "
        "#4725)",
    fix="end what listens there, or set [cluster] hccl_base_port; keep it outside of "
        "/proc/sys/net/ipv4/ip_local_port_range",
)  # fmt: skip
def _hccl_ports(facts: Facts) -> Iterator[Complaint]:
    if facts.device != NPU:
        raise NoMatter
    wanted = facts.config.cluster.hccl_ports
    taken = sorted(facts.machine.listening & set(wanted))
    if taken:
        yield bad(f"something listens on port {', '.join(map(str, taken))}", f"{wanted[0]} to {wanted[-1]} free")
    ephemeral = facts.machine.ephemeral_ports
    if ephemeral and facts.machine.hands_out(wanted):
        yield doubtful(f"ephemeral ports {ephemeral[0]} to {ephemeral[1]}", f"none of {wanted[0]} to {wanted[-1]}")
    pattern = r"(?i)hccl.*(port|bind|address).*(use|occupied|fail)"
    yield from _logged(facts, pattern, "ports that are free on every node")


@check(
    "X008", "there is memory for the KV cache", needs="runs",
    why="vLLM takes memory_share of a die and gives the cache what weights and a trial step leave; less than nothing "
        "ends the run at its start (vllm-ascend#9372)",
    fix="raise [rollout] memory_share, lower max_batched_tokens, or spread the experts over more dies; python -m "
        "recipe plan RUN.toml says what fits",
)  # fmt: skip
def _kv_memory(facts: Facts) -> Iterator[Complaint]:
    try:
        _ = facts.latest_run.directory
    except CannotTell:
        raise NoMatter from None
    pattern = r"No available memory for the cache blocks|KV cache.*(negative|larger than the available)"
    yield from _logged(facts, pattern, "room for at least one sequence")


@check(
    "X009", "vLLM finds its NPU platform", needs="runs",
    why="vLLM loads platforms by entry points and swallows what goes wrong with one: it then runs as if there were no "
        "NPU, and no patch of vLLM-Ascend is loaded",
    fix=SYNC + "; run: unset VLLM_PLUGINS",
)  # fmt: skip
def _plugins(facts: Facts) -> Iterator[Complaint]:
    if facts.device == CUDA:
        raise NoMatter  # its vLLM is the installed one
    listed = facts.machine.environ.get("VLLM_PLUGINS")
    if listed is not None and "ascend" not in listed.split(","):
        yield bad(f"VLLM_PLUGINS={listed}", "not set, or with ascend in it")
    if not facts.upstream.is_dir():
        raise CannotTell(f"{facts.upstream} is not there; run: python -m recipe sync")
    texts = [file.read_text(encoding="utf-8") for file in facts.upstream.glob("vllm_ascend*/entry_points.txt")]
    if not any("vllm_ascend:register" in text for text in texts):
        yield bad(f"no entry point of vLLM-Ascend in {facts.upstream}", "vllm.platform_plugins: ascend")


@check(
    "X010", "the sources are the pinned commits, not nearly them", needs="runs",
    why="other tools only warn when the installed commit is not the wanted one, and then patch what they find",
    fix=SYNC,
)  # fmt: skip
def _commits(facts: Facts) -> Iterator[Complaint]:
    from recipe.sources.pins import read_pins

    manifest = facts.upstream_manifest
    if manifest is None:
        raise CannotTell(f"{facts.upstream} was not made by sync; run: python -m recipe sync")
    profile = read_pins(facts.repo / "upstreams.toml").profiles.get(str(manifest.get("profile")))
    for pin in profile.pins if profile else ():
        synced = manifest["upstreams"].get(pin.name, {})
        wanted = {"commit": pin.commit} if pin.git else {"sha256": pin.sha256}
        for key, value in wanted.items():
            if synced.get(key) != value:
                yield bad(f"{pin.name} at {key} {synced.get(key, 'unknown')}", f"{key} {value}")
    for package, entry in manifest.get("adopted", {}).items():
        if differs := list(entry["accepted"]):
            more = f" and {len(differs) - 1} more" if len(differs) > 1 else ""
            yield doubtful(f"{package}, adopted from {entry['path']}, differs in {differs[0]}{more}", "as pinned")
        elif not entry["compared"]:
            yield doubtful(
                f"{package}, adopted from {entry['path']}, was not compared file by file", "as pinned",
                f"bring the pinned files (sync --from), and run: python -m recipe sync --adopt {entry['path']}",
            )  # fmt: skip
