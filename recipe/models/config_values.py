# SPDX-License-Identifier: Apache-2.0
"""Whether config.json has, where a size or a switch is expected, a size or a switch.

It is typed by people and tools: a null, a text, a fraction, a number without end. Whatever reads it later computes with
its numbers, and makes a list of as many layers as it says.
"""

from __future__ import annotations

from recipe.models.family import Config, Family, ModelError

# No tensor is longer than this along any axis, no model has more layers or, all layers together, experts.
_LARGEST, _MOST_LAYERS, _MOST_EXPERTS = 2**31 - 1, 4096, 200_000
_LAYERS = "num_hidden_layers"
#: Layers for multi-token prediction, beside the others.
PREDICTING = "num_nextn_predict_layers"
_EXPERTS = ("n_routed_experts", "num_experts")


def check_values(config: Config, family: Family) -> None:
    """Raise ModelError for the first key that is missing, or whose value is no size, count or switch."""
    for key in (*family.sizes, *family.counts):
        if key not in config:
            raise ModelError(f"{key} is missing; a model of type {config['model_type']} needs it")
        _check_number(config, key, 1 if key in family.sizes else 0)
    for key in family.optional:
        if config.get(key) is not None:
            _check_number(config, key, 1)
    if config.get(PREDICTING) is not None:
        _check_number(config, PREDICTING, 0)
    for key in family.switches:
        if not isinstance(config.get(key), bool | None):
            raise ModelError(f"{key} is {shown(config[key])}; expected true or false")
    layers = config[_LAYERS] + (config.get(PREDICTING) or 0)
    if layers > _MOST_LAYERS:
        raise ModelError(f"{_LAYERS} makes {layers} layers; at most {_MOST_LAYERS} are known to exist")
    for key in set(_EXPERTS) & set(family.sizes):
        if layers * config[key] > _MOST_EXPERTS:
            raise ModelError(
                f"{key} is {config[key]} in {layers} layers; at most {_MOST_EXPERTS} together are known to exist"
            )


def _check_number(config: Config, key: str, least: int) -> None:
    value = config[key]
    if type(value) is not int or not least <= value <= _LARGEST:
        raise ModelError(f"{key} is {shown(value)}; expected a whole number, {least} to {_LARGEST}")


def shown(value: object) -> str:
    """The value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
