# SPDX-License-Identifier: Apache-2.0
"""The figures of a run (`summary.json`), from what the run left in its directory."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from recipe.recorder import node_dirs, read_events, read_lines
from recipe.report.marks import read_marks
from recipe.report.metrics import FLIPS, KL_KEYS, PEARSON, REPLAYED, REWARD, STEP_SECONDS, Step, read_steps
from recipe.upstreams import upstream_tree

REPO = Path(__file__).resolve().parents[2]
UPSTREAMS = ("verl", "vllm", "vllm-ascend", "megatron-core", "mindspeed")
RUNTIME = ("torch", "ray", "transformers", "npu-sim")


def summarise(run_dir: Path) -> dict[str, Any]:
    """The summary of a run directory. A figure whose source is missing is None.

    Keys: `steps` (finished training steps), `wall_s` (from the launcher's start to its end), `val_score_first`,
    `val_score_last`, `reward_first`, `reward_last` (mean over the first and last training step's samples),
    `released_bytes_max` (largest device use by the rollout after a release, over all steps and ranks),
    `rollout_actor_pearson_min` and `rollout_actor_kl_abs_max` (probabilities of the sampled tokens, over all steps;
    not-a-number if one of them is), `routing_replayed_min` and `routing_flips_max` (of the sampler's choices of
    experts, the share that the actor followed, and the share that it would have made otherwise; None without
    `train.routing_replay`), `peak_hbm_bytes` (largest peak of one device), `rss_peak_bytes` (largest sum over a node's
    processes at one time), `step_s_median`, `upstreams` and `runtime` (versions), `patches_live` (ids applied in
    at least one process), `patches_skipped`, `processes` (pid, role and number of live patches), `device` (the run
    file's: sim, npu or cuda), `marks` (what `recipe.report.marks` holds, in its order), and the outcome: `status`,
    `error`, `seed`.
    """
    steps = read_steps(run_dir / "metrics.jsonl")
    trained = [step for step in steps if step.trained]
    scores = [score for step in steps if (score := step.validation_score) is not None]
    events = read_events(run_dir)
    memory = [event for event in events if event.get("kind") == "memory"]
    manifest = [line for node in node_dirs(run_dir) for line in read_lines(node / "manifest.jsonl")]
    result = _read_json(run_dir / "result.json")
    rewards = [value for step in trained if (value := step.get(REWARD)) is not None]
    return {
        "status": result.get("status", "unknown"),
        "error": result.get("error"),
        "seed": result.get("seed"),
        "device": _device(_read_json(run_dir / "command.json")),
        "steps": trained[-1].number if trained else 0,
        "wall_s": result.get("wall_s"),
        "step_s_median": median(_values(trained, STEP_SECONDS)),
        "val_score_first": scores[0] if scores else None,
        "val_score_last": scores[-1] if scores else None,
        "reward_first": rewards[0] if rewards else None,
        "reward_last": rewards[-1] if rewards else None,
        "released_bytes_max": _largest(
            event.get("rollout_bytes", event.get("allocated")) for event in memory if event.get("phase") == "released"
        ),
        "rollout_actor_pearson_min": _worst(min, trained, PEARSON),
        "rollout_actor_kl_abs_max": _worst(lambda values: max(map(abs, values)), trained, *KL_KEYS),
        "routing_replayed_min": _worst(min, trained, REPLAYED),
        "routing_flips_max": _worst(max, trained, FLIPS),
        "peak_hbm_bytes": _largest(event.get("peak") for event in memory),
        "rss_peak_bytes": _largest(event.get("rss") for event in events if event.get("kind") == "processes"),
        "upstreams": versions(run_dir, UPSTREAMS),
        "runtime": versions(run_dir, RUNTIME),
        "patches_live": sorted({line["patch"] for line in manifest if line.get("status") == "applied"}),
        "patches_skipped": _skipped(manifest),
        "processes": _processes(manifest),
        "marks": [dataclasses.asdict(mark) for mark in read_marks(run_dir)],
    }


def _device(command: dict[str, Any]) -> Any:
    try:
        return command["config"]["cluster"]["device"]
    except (KeyError, TypeError):
        return None


def _values(steps: Iterable[Step], *names: str) -> list[float]:
    return [value for step in steps if (value := step.get(*names)) is not None]


def _worst(choose: Callable[[list[float]], float], steps: list[Step], *names: str) -> float | None:
    """`choose` (max or min) of a metric's values; not-a-number where one of them is, which max and min may ignore."""
    values = _values(steps, *names)
    if any(map(math.isnan, values)) or any(not step.unreadable.isdisjoint(names) for step in steps):
        return math.nan
    return choose(values) if values else None


def _largest(values: Iterable[Any]) -> Any:
    return max((value for value in values if isinstance(value, (int, float))), default=None)


def median(values: list[float]) -> float | None:
    """The middle value (the upper one of two); None of an empty list."""
    return sorted(values)[len(values) // 2] if values else None


def _skipped(manifest: list[dict[str, Any]]) -> dict[str, str]:
    live = {line.get("patch") for line in manifest if line.get("status") == "applied"}
    return {
        str(line["patch"]): str(line.get("reason", ""))
        for line in manifest
        if line.get("status") == "skipped" and line.get("patch") not in live
    }


def _processes(manifest: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every process that loaded the overlay, with its last known role: a worker learns its rank after its start."""
    processes: dict[tuple[str, int], dict[str, Any]] = {}
    for line in manifest:
        key = (str(line.get("host")), int(line.get("pid", 0)))
        entry = processes.setdefault(key, {"host": key[0], "pid": key[1], "role": "", "patches": 0})
        entry["role"] = str(line.get("role", entry["role"]))
        entry["patches"] += line.get("status") == "applied"
    return list(processes.values())


def versions(run_dir: Path, names: Iterable[str]) -> dict[str, str]:
    """Versions as recorded when the run's first report was made, else those of the sources and packages now here."""
    recorded = _read_json(run_dir / "versions.json")
    now: dict[str, str] = {}
    paths = [str(upstream_tree(REPO))]
    for name in names:
        if name in recorded:
            now[name] = recorded[name]
            continue
        distribution = next(iter(importlib.metadata.distributions(name=name, path=paths)), None)
        try:
            now[name] = distribution.version if distribution else importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    (run_dir / "versions.json").write_text(json.dumps({**recorded, **now}, indent=2) + "\n", encoding="utf-8")
    return now


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}
