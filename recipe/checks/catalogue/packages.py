# SPDX-License-Identifier: Apache-2.0
"""P: what is installed, the upstream sources, and the overlay over them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from recipe.checks.declaration import check
from recipe.checks.facts.packages import differing, requirements
from recipe.checks.facts.run import Facts
from recipe.checks.finding import CannotTell, Complaint, NoMatter, bad, doubtful
from recipe.runfile.schema import CUDA, NPU, SIM
from recipe.runfile.trackers import needed

# Of many things of one kind, so many are named.
SHOWN = 6
SYNC = "run: python -m recipe sync"
ADOPT = "python -m recipe sync --adopt DIR"


@check(
    "P001", "Python is one that the pinned stack runs on", needs="node", any_run=True,
    why="the pinned packages have no builds for other versions, and Ray refuses workers of another minor version",
    fix="make the environment with Python 3.11 (RECIPE_PYTHON names one for scripts/setup.sh)",
)  # fmt: skip
def _python(facts: Facts) -> Iterator[Complaint]:
    if not (3, 10) <= facts.machine.python[:2] <= (3, 12):
        yield bad("Python " + ".".join(map(str, facts.machine.python)), "3.10, 3.11 or 3.12")


@check(
    "P002", "installed packages have the pinned versions", needs="node", any_run=True,
    why="the overlay, the simulator and the published figures belong to exactly these versions",
    fix="install them: pip install -r the requirements file (laptop: scripts/setup.sh)",
)  # fmt: skip
def _versions(facts: Facts) -> Iterator[Complaint]:
    file = facts.requirements_file
    if facts.device == CUDA:
        raise CannotTell("no file pins the packages of a GPU's environment")
    if not file.is_file():
        raise CannotTell(f"{file.name} is not there")
    wrong = [
        f"{name} {installed or 'is missing'} (pinned: {version})"
        for name, installed, version in differing(facts.machine, requirements(file, facts.machine.python))
    ]
    if wrong:
        fix = "run: scripts/setup.sh" if facts.device == SIM else f"run: pip install -r {file.name}"
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        yield bad("; ".join(wrong[:SHOWN]) + more, f"the versions of {file.name}", fix)


@check(
    "P003", "the upstream sources are there, with our line and patches in them", needs="node", any_run=True,
    why="without the prelude line no patch is applied in any worker, and the run fails late or trains something else",
    fix=f"{SYNC}, or with trees that you have copied in yourself: {ADOPT}",
)  # fmt: skip
def _upstream(facts: Facts) -> Iterator[Complaint]:
    manifest = facts.upstream_manifest
    if manifest is None:
        yield bad(f"{facts.upstream} was not made by sync, or is not whole", "the pinned sources")
    elif manifest.get("state") != "ours":
        yield bad(f"{facts.upstream} holds the pinned sources without our changes", "the prelude line in verl")


@check(
    "P004", "the upstream sources are unchanged since they were synced", needs="node", any_run=True,
    why="an edit by hand is on this node only, and no report of a run says so",
    fix=f"{SYNC} (it puts every file back); of an adopted tree, look at the file and run: {ADOPT}",
)  # fmt: skip
def _unchanged(facts: Facts) -> Iterator[Complaint]:
    from recipe.sources.tree import changes

    manifest = facts.upstream_manifest
    if manifest is None:
        raise CannotTell(f"{facts.upstream} has no manifest (P003)")
    lines = changes(facts.upstream, manifest)
    if lines:
        more = f" and {len(lines) - 1} more" if len(lines) > 1 else ""
        yield bad(f"{facts.upstream}: {lines[0]}{more}", "every file as synced or adopted")


@check(
    "P005", "the upstream sources are those of this tree's pins, and of this kind of device", needs="node",
    any_run=True,
    why="after a change of upstreams.toml the old sources stay until the next sync; the a3 profile has MindSpeed and "
        "the commit of vLLM-Ascend that NPUs need, the sim profile the released wheels",
    fix=SYNC + " --profile a3 (NPU) or --profile sim (laptop)",
)  # fmt: skip
def _pins(facts: Facts) -> Iterator[Complaint]:
    from recipe.sources.compose import wanted
    from recipe.sources.errors import SourcesError
    from recipe.sources.pins import read_pins

    manifest = facts.upstream_manifest
    if manifest is None:
        raise CannotTell(f"{facts.upstream} has no manifest (P003)")
    name = str(manifest.get("profile"))
    if facts.device == NPU and name != "a3":
        yield bad(f"profile {name} in {facts.upstream}", "profile a3 for NPUs", SYNC + " --profile a3")
        return
    try:
        profile = read_pins(facts.repo / "upstreams.toml").profile(name, manifest.get("beside", ()))
        digest = wanted(profile, facts.repo, manifest.get("state") == "pristine").digest()
    except SourcesError as error:
        yield bad(str(error), "pins that can be read")
        return
    if manifest.get("pins") != digest:
        yield bad(f"{facts.upstream} was synced for other pins or source patches than this tree's", "the same", SYNC)


@check(
    "P006", "every patch of the overlay fits the sources it is laid over", needs="node", any_run=True,
    why="a patch that does not fit stops the worker at import, after the cluster has been taken",
    fix="run: python -m recipe patches verify, and python -m recipe sync when the sources are not the pinned ones",
)  # fmt: skip
def _overlay(facts: Facts) -> Iterator[Complaint]:
    from recipe.audit.fit import unchecked

    if not (facts.upstream / "verl").is_dir():
        raise CannotTell(f"{facts.upstream} holds no verl (P003)")
    fits = facts.fits.values()
    drifted = [fit.line.splitlines()[0] for fit in fits if not fit.fits]
    for line in drifted[:SHOWN]:
        yield bad(line, "the function the patch was written for")
    if len(drifted) > SHOWN:
        yield bad(f"{len(drifted) - SHOWN} more patches do not fit", "none")
    needed = {"verl", "megatron"} | ({"mindspeed"} if facts.device == NPU else set())
    needed |= set() if facts.device == CUDA else {"vllm", "vllm_ascend"}
    absent = sorted(needed & set(unchecked(fits)))
    if absent:
        yield bad(f"{', '.join(absent)} is not in {facts.upstream}", "every package that is patched", SYNC)


@check(
    "P007", "no second copy of an upstream lies on the import path", needs="node", any_run=True,
    why="a process started without our PYTHONPATH (a Ray that was started by hand, a notebook) would run that copy, "
        "without the overlay",
    fix=f"run it: {ADOPT}; or start Ray by scripts/launch.sh only, or uninstall it",
)  # fmt: skip
def _second_copy(facts: Facts) -> Iterator[Complaint]:
    # On GPUs vLLM is the installed one, with its kernels.
    packages = (
        ("verl", "megatron") if facts.device == CUDA else ("verl", "vllm", "vllm_ascend", "megatron", "mindspeed")
    )
    adopted = (facts.upstream_manifest or {}).get("adopted", {})
    for package in packages:
        known = [facts.upstream / package, *([Path(adopted[package]["path"])] if package in adopted else [])]
        for place in [Path(entry or ".") for entry in dict.fromkeys(facts.machine.path)]:
            there = any((place / package / mark).is_file() for mark in ("__init__.py", "core/__init__.py"))
            if there and (place / package).resolve() not in [one.resolve() for one in known]:
                fix = (
                    f"run it: {ADOPT.replace('DIR', str(place / package))}; or start Ray by scripts/launch.sh only, or "
                )
                yield doubtful(f"{package} also lies in {place}", f"only in {facts.upstream}", fix + "uninstall it")


@check(
    "P009", "the trackers of the run are installed, and the online ones have what they need", needs="node",
    why="verl imports them when the weights are loaded, after the cluster has been taken; without a token they ask for "
        "it and wait",
    fix="install the package, set the variable where you launch, or leave the tracker out of [run] trackers",
)  # fmt: skip
def _trackers(facts: Facts) -> Iterator[Complaint]:
    config = facts.config
    on_head = config.cluster.nodes == 1 or config.cluster.head in facts.machine.interfaces.values()
    if not config.run.trackers or not on_head:  # the trainer is on the head
        raise NoMatter
    for tracker in config.run.trackers:
        if facts.machine.version(tracker) is None:
            yield bad(f"{tracker} is not installed", "the package of each tracker", f"run: pip install {tracker}")
    for tracker, name in needed(config, facts.machine.environ):
        yield bad(f"trackers_online, and no {name} for {tracker}", "that variable in the environment")


@check(
    "P008", "the device's own packages are there: npu_sim on a laptop, torch_npu on an NPU", needs="node", any_run=True,
    why="verl looks for torch_npu to decide what the device is; without it, it trains on the CPU or not at all",
    fix="laptop: scripts/setup.sh; NPU: install torch_npu 2.5.1.post1 as the Dockerfile does",
)  # fmt: skip
def _device_package(facts: Facts) -> Iterator[Complaint]:
    simulated, real = facts.machine.version("npu-sim"), facts.machine.version("torch-npu")
    if facts.device == CUDA:
        raise NoMatter
    if facts.device == SIM and simulated is None:
        yield bad("npu-sim is not installed", "the simulated NPU", "run: scripts/setup.sh")
    if facts.device == NPU and real is None:
        yield bad("torch-npu is not installed", "torch-npu 2.5.1.post1")
    if simulated and (real or facts.device == NPU):
        yield bad(
            "npu-sim is installed" + (" beside torch-npu" if real else ""),
            "one package named torch_npu", "run: pip uninstall npu-sim" if facts.device == NPU else
            "run: pip uninstall torch-npu, or use an environment of its own",
        )  # fmt: skip
