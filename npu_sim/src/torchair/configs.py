# SPDX-License-Identifier: Apache-2.0
"""CompilerConfig: the option tree that callers fill in. An option that torchair does not have raises AttributeError."""

from typing import Any


class OptionGroup:
    """Attributes with fixed names; values are kept and not interpreted."""

    _group: str

    def __init__(self, group: str, **options: Any) -> None:
        self.__dict__["_group"] = group
        self.__dict__.update(options)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dict__ or name == "_group":
            raise AttributeError(f"torchair {self._group} has no option {name!r}; it has {self.as_dict()}")
        self.__dict__[name] = value

    def as_dict(self) -> dict[str, Any]:
        """Options and values."""
        return {key: value for key, value in self.__dict__.items() if key != "_group"}


class CompilerConfig(OptionGroup):
    """Options of the graph compiler, by group (names of torchair 7.1)."""

    def __init__(self) -> None:
        super().__init__(
            "CompilerConfig",
            mode="max-autotune",
            debug=OptionGroup(
                "debug",
                graph_dump=OptionGroup("graph_dump", type=None, path=None),
                data_dump=OptionGroup("data_dump", type=None),
                fx_summary=OptionGroup("fx_summary", type=None),
                aclgraph=OptionGroup(
                    "aclgraph",
                    disable_reinplace_inplaceable_ops_pass=False,
                    disable_reinplace_input_mutated_ops_pass=False,
                ),
            ),
            dump_config=OptionGroup(
                "dump_config",
                enable_dump=False,
                dump_path=None,
                dump_mode="all",
                quant_dumpable=False,
                dump_step=None,
                dump_layer=None,
                dump_data="tensor",
            ),
            export=OptionGroup(
                "export",
                export_mode=False,
                experimental=OptionGroup(
                    "experimental", auto_atc_config_generated=False, enable_record_nn_module_stack=False
                ),
            ),
            fusion_config=OptionGroup("fusion_config", fusion_switch_file=None),
            inference_config=OptionGroup("inference_config", dynamic_gears_merge_policy="zip"),
            ge_config=OptionGroup(
                "ge_config",
                enable_single_stream=False,
                oo_level="O3",
                oo_constant_folding=True,
                oo_dead_code_elimination=True,
                export_compile_stat="1",
                aicore_num=None,
            ),
            aclgraph_config=OptionGroup("aclgraph_config", use_custom_pool=None),
            experimental_config=OptionGroup(
                "experimental_config",
                cc_parallel_enable=False,
                keep_inference_input_mutations=True,
                enable_ref_data=False,
                frozen_parameter=False,
                tiling_schedule_optimize=False,
                enable_view_optimize=True,
                topology_sorting_strategy=None,
                static_model_ops_lower_limit=None,
                jit_compile="auto",
                npu_fx_pass=False,
                remove_noop_ops=True,
                memory_efficiency=False,
                separate_atomic_clean=True,
                pattern_fusion_pass=True,
            ),
        )
