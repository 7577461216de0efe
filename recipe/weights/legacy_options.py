# SPDX-License-Identifier: Apache-2.0
"""How a legacy checkpoint is split over ranks, and whether the model of a config.json can be split so.

The names of the options are those of MindSpeed-LLM's convert_ckpt_deepseek3.py. Its consumers are started with the
same numbers, so a number that the model contradicts is refused rather than corrected.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from recipe.models.deepseek_v3 import FAMILY as DEEPSEEK_V3
from recipe.weights.errors import WeightsError

# Versions of MindSpeed-LLM; each is the last or the first one with its names of attention's tensors.
VERSIONS = ("2.1", "2.2")


@dataclass(frozen=True)
class LegacyOptions:
    """The split asked for.

    layer_list: layers of each pipeline stage; None: the same number in all. num_layers, first_k_dense_replace: the
    sizes that the user expects of the model; None: those of config.json. tp_extend_ep: the experts of one
    expert-parallel rank are dealt whole to its tensor-parallel ranks, not sliced. mindspeed_llm: the version whose
    names attention's tensors get, one of VERSIONS.
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    layer_list: tuple[int, ...] | None = None
    num_layers: int | None = None
    first_k_dense_replace: int | None = None
    grouped_gemm: bool = False
    tp_extend_ep: bool = False
    mla_mm_split: bool = False
    mindspeed_llm: str = "2.1"

    @property
    def expert_ranks(self) -> int:
        """Over how many ranks the experts of a layer are dealt."""
        return self.expert * (self.tensor if self.tp_extend_ep else 1)

    @property
    def expert_slices(self) -> int:
        """Into how many slices each expert is cut."""
        return 1 if self.tp_extend_ep else self.tensor


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options, as a group of the parser's."""
    group = parser.add_argument_group("the legacy format", "as convert_ckpt_deepseek3.py calls them")
    for axis in ("tensor", "pipeline", "expert"):
        group.add_argument(
            f"--target-{axis}-parallel-size", type=int, metavar="N", help=f"{axis}-parallel ranks (default 1)"
        )
    group.add_argument("--num-layer-list", metavar="N,N,...", help="layers of each pipeline stage (default: equal)")
    group.add_argument("--num-layers", type=int, metavar="N", help="refuse a model with another number of layers")
    group.add_argument("--first-k-dense-replace", type=int, metavar="N", help="refuse another number of dense layers")
    group.add_argument("--moe-grouped-gemm", action="store_true", help="experts of a rank as weight1 and weight2")
    group.add_argument("--moe-tp-extend-ep", action="store_true", help="deal whole experts to tensor-parallel ranks")
    group.add_argument("--mla-mm-split", action="store_true", help="the up-projections of MLA as four matrices")
    group.add_argument(
        "--mindspeed-llm",
        choices=VERSIONS,
        default=VERSIONS[0],
        help="whose names: 2.1 and before have linear_qb, linear_kvb and k_layernorm, 2.2 and later linear_q_up_proj, "
        "linear_kv_up_proj and kv_layernorm (default: %(default)s)",
    )


def from_arguments(arguments: argparse.Namespace) -> LegacyOptions:
    """The options of a parsed command line; raises WeightsError for a list that is none."""
    layers = None
    if arguments.num_layer_list is not None:
        try:
            layers = tuple(int(number) for number in arguments.num_layer_list.split(","))
        except ValueError:
            raise WeightsError(
                f"--num-layer-list {arguments.num_layer_list}: not numbers with commas between"
            ) from None
    sizes = {name: getattr(arguments, f"target_{name}_parallel_size") for name in ("tensor", "pipeline", "expert")}
    return LegacyOptions(
        **{name: 1 if size is None else size for name, size in sizes.items()},
        layer_list=layers,
        num_layers=arguments.num_layers,
        first_k_dense_replace=arguments.first_k_dense_replace,
        grouped_gemm=arguments.moe_grouped_gemm,
        tp_extend_ep=arguments.moe_tp_extend_ep,
        mla_mm_split=arguments.mla_mm_split,
        mindspeed_llm=arguments.mindspeed_llm,
    )


def given(arguments: argparse.Namespace) -> list[str]:
    """The legacy options that a command line sets, by their names there."""
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    defaults = vars(parser.parse_args([]))
    return [f"--{name.replace('_', '-')}" for name, default in defaults.items() if getattr(arguments, name) != default]


def stages(options: LegacyOptions, config: dict[str, Any]) -> list[range]:
    """The layers of each pipeline stage, after every check of the options against the model of config.json.

    Raises WeightsError, naming the option, what it says, and what the model says.
    """
    try:
        return _stages(options, config)
    except KeyError as error:
        raise WeightsError(f"config.json: {error.args[0]} is missing; the legacy format needs it") from error


def _stages(options: LegacyOptions, config: dict[str, Any]) -> list[range]:
    _check_model(config)
    for axis in ("tensor", "pipeline", "expert"):
        if (size := getattr(options, axis)) < 1:
            raise WeightsError(f"--target-{axis}-parallel-size {size}: at least one rank is needed")
    layers = config["num_hidden_layers"]
    for option, option_value, name in (
        ("--num-layers", options.num_layers, "num_hidden_layers"),
        ("--first-k-dense-replace", options.first_k_dense_replace, "first_k_dense_replace"),
    ):
        if option_value is not None and option_value != config[name]:
            raise WeightsError(f"{option} {option_value}: config.json has {name} {config[name]}; they must agree")
    if options.tp_extend_ep and not options.grouped_gemm:
        raise WeightsError("--moe-tp-extend-ep needs --moe-grouped-gemm: MindSpeed has it for grouped experts only")
    _check_divisions(options, config)
    return _deal_layers(options, layers)


def _check_model(config: dict[str, Any]) -> None:
    if config["model_type"] not in DEEPSEEK_V3.model_types:
        raise WeightsError(f"config.json: model_type {config['model_type']!r}; the legacy format is deepseek_v3's")
    if config.get("q_lora_rank") is None:
        raise WeightsError("config.json: q_lora_rank is null; the legacy format has no name for a whole q_proj")


def _check_divisions(options: LegacyOptions, config: dict[str, Any]) -> None:
    shared = config["moe_intermediate_size"] * (config.get("n_shared_experts") or 0)
    divided = [
        ("num_attention_heads", config["num_attention_heads"]),
        ("vocab_size", config["vocab_size"]),
        ("intermediate_size", config["intermediate_size"]),
        ("the shared experts' size", shared),
    ]
    if not options.tp_extend_ep:
        divided.append(("moe_intermediate_size", config["moe_intermediate_size"]))
    for name, size in divided:
        if size % options.tensor:
            raise WeightsError(
                f"--target-tensor-parallel-size {options.tensor} does not divide {name} {size} of config.json"
            )
    experts = config["n_routed_experts"]
    if experts % options.expert_ranks:
        product = f" times {options.tensor} tensor-parallel ranks" if options.tp_extend_ep else ""
        raise WeightsError(
            f"--target-expert-parallel-size {options.expert}{product} does not divide n_routed_experts {experts} of "
            "config.json"
        )


def _deal_layers(options: LegacyOptions, layers: int) -> list[range]:
    counts = options.layer_list
    if counts is None:
        if layers % options.pipeline:
            raise WeightsError(
                f"--target-pipeline-parallel-size {options.pipeline} does not divide {layers} layers; give "
                "--num-layer-list"
            )
        counts = (layers // options.pipeline,) * options.pipeline
    text = ",".join(map(str, counts))
    if len(counts) != options.pipeline:
        raise WeightsError(
            f"--num-layer-list {text} has {len(counts)} stages, --target-pipeline-parallel-size says {options.pipeline}"
        )
    if min(counts) < 1:
        raise WeightsError(f"--num-layer-list {text}: every stage needs at least one layer")
    if sum(counts) != layers:
        raise WeightsError(f"--num-layer-list {text} sums to {sum(counts)}, config.json has num_hidden_layers {layers}")
    ends = [sum(counts[: stage + 1]) for stage in range(len(counts))]
    return [range(end - count, end) for end, count in zip(ends, counts, strict=True)]
