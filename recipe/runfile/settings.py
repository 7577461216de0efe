# SPDX-License-Identifier: Apache-2.0
"""Whether a run can go on with another run file than its checkpoint's, by the `on_resume` of each key of the schema.

Settings that leave the run what it is may change freely; those that make another run of it are accepted one by one with
`--accept`; those of the model may not change.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import typing
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from recipe.runfile.errors import ConfigError
from recipe.runfile.passed import SECTION, bare
from recipe.runfile.schema import RunConfig
from recipe.runfile.typed_toml import CHANGES, FREE, IMPOSSIBLE, REQUIRED, shown

ENVIRONMENT = "environment"
# Settings of verl that leave a run what it is, by their beginnings: what is written about it, profiling, waiting.
_FREE_SETTINGS = (
    *("trainer.project_name", "trainer.log_val_generations", "trainer.rollout_data_dir", "trainer.wandb_proxy"),
    *(
        "trainer.ray_wait_register_center_timeout",
        "trainer.del_local_ckpt_after_load",
        "global_profiler.",
        "ray_kwargs.",
    ),
    *("actor_rollout_ref.actor.profiler.", "actor_rollout_ref.ref.profiler.", "actor_rollout_ref.rollout.profiler."),
    *("actor_rollout_ref.rollout.disable_log_stats", "actor_rollout_ref.rollout.update_weights_bucket_megabytes"),
)
_UNSET = object()


@dataclass(frozen=True)
class Difference:
    """A key whose value is not that of the checkpoint's run file, as `--accept` takes it; `text` has both values."""

    key: str
    on_resume: str
    text: str


@cache
def keys() -> dict[str, dataclasses.Field[Any]]:
    """The fields of the run file by "section.key", tables' keys by "section.table.key"."""
    return dict(_fields(RunConfig, ""))


def _fields(cls: type[Any], prefix: str) -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        inner = next((option for option in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(option)), None)
        if inner is None:
            yield prefix + field.name, field
        else:
            yield from _fields(typing.cast(type[Any], inner), f"{prefix}{field.name}.")


def require_acceptable(accepted: Collection[str]) -> None:
    """Require that every key given with `--accept` exists, and is one that has to be accepted.

    Raises:
        ConfigError: there is no such key, it may change without being accepted, or it may not change at all.
    """
    for name in accepted:
        if name.startswith(f"{SECTION}."):
            if _of_setting(name.partition(".")[2]) == FREE:
                raise ConfigError(f"--accept {name}: it may differ without that; leave the option out")
            continue
        if name not in keys():
            near = difflib.get_close_matches(name, keys(), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "expected SECTION.KEY, as in train.learning_rate"
            raise ConfigError(f"--accept {shown(name)}: there is no such key; {hint}")
        kind = keys()[name].metadata["on_resume"]
        if kind == IMPOSSIBLE:
            raise ConfigError(
                f"--accept {name}: a checkpoint of another model cannot be gone on from; give --fresh to begin anew, "
                "or another --name"
            )
        if kind == FREE:
            raise ConfigError(f"--accept {name}: it may differ without that; leave the option out")


def differences(saved: Mapping[str, Any], config: RunConfig) -> list[Difference]:
    """The keys whose values differ from those that the checkpoint was made with.

    Args:
        saved: the run file of the checkpoint, as the JSON of its dataclass; it may lack keys, which had their default,
            and have keys that this version does not know.
        config: the run file.
    """
    current = json.loads(json.dumps(config.described()))
    changed: list[Difference] = []
    for name, field in keys().items():
        before, now = _value(saved, name, field), _value(current, name, field)
        if name == SECTION:
            changed += _settings(before, now)
            continue
        text = _environment(before, now) if name == ENVIRONMENT else _both(name, before, now)
        if before != now and text:
            changed.append(Difference(name, field.metadata["on_resume"], text))
    for name, value in _leaves(saved, ""):
        if name not in keys() and not name.startswith(tuple(f"{known}." for known in keys())) and value is not None:
            changed.append(Difference(name, FREE, f"{_bracketed(name)} was {shown(value)}, and is no key of run files"))
    return changed


def _settings(before: Any, now: Any) -> Iterator[Difference]:
    """The settings of verl that differ; how a new key is marked makes no difference."""
    old, new = ({bare(key): value for key, value in (table or {}).items()} for table in (before, now))
    for name in sorted({*old, *new}):
        if old.get(name, _UNSET) != new.get(name, _UNSET):
            was, is_now = (shown(table[name]) if name in table else "not set" for table in (old, new))
            text = f"[{SECTION}] {name} is {is_now} now and {was} in the checkpoint"
            yield Difference(f"{SECTION}.{name}", _of_setting(name), text)


def _of_setting(name: str) -> str:
    """What a change of a setting of verl means to a run that goes on."""
    return FREE if name.startswith(_FREE_SETTINGS) else CHANGES


def _value(values: Any, name: str, field: dataclasses.Field[Any]) -> Any:
    for key in name.split("."):
        if values is None:  # a table that was left out
            return None
        if not isinstance(values, Mapping) or key not in values:
            if field.default is not REQUIRED:
                return field.default
            return None if field.default_factory is REQUIRED else field.default_factory()
        values = values[key]
    return values


def _leaves(values: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping) and prefix.removesuffix(".") not in keys():
        for name, value in values.items():
            yield from _leaves(value, f"{prefix}{name}.")
    else:
        yield prefix.removesuffix("."), values


def _both(name: str, before: Any, now: Any) -> str:
    return f"{_bracketed(name)} is {shown(now)} now and {shown(before)} in the checkpoint"


def _environment(before: Any, now: Any) -> str:
    """The variables that differ, by name only; two masked values count as equal."""
    old, new = (value if isinstance(value, Mapping) else {} for value in (before, now))
    names = [name for name in sorted({*old, *new}) if old.get(name) != new.get(name)]
    return f"[{ENVIRONMENT}] differs in {', '.join(names)}" if names else ""


def _bracketed(name: str) -> str:
    section, _, rest = name.partition(".")
    return f"[{section}] {rest}" if rest else f"[{section}]"


def require_continuable(changes: Collection[Difference], accepted: Collection[str], what: str) -> None:
    """Require that every difference is free, or has been accepted.

    Args:
        changes: the differences.
        accepted: keys that the user has named.
        what: begins the message: which run cannot go on from which checkpoint.

    Raises:
        ConfigError: names the differences that are neither, and what to do.
    """
    if impossible := [change for change in changes if change.on_resume == IMPOSSIBLE]:
        raise ConfigError(
            f"{what}, which is of another model: {'; '.join(change.text for change in impossible)}. Put that back, or "
            "give --fresh to begin anew, or another --name"
        )
    if unaccepted := [change for change in changes if change.on_resume == CHANGES and change.key not in accepted]:
        texts = "; ".join(change.text for change in unaccepted)
        options = " ".join(f"--accept {change.key}" for change in unaccepted)
        raise ConfigError(
            f"{what} with this run file: {texts}. Put that back, or, if another run is to come of it from there, give "
            f"{options}"
        )
