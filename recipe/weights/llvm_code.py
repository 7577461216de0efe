# SPDX-License-Identifier: Apache-2.0
"""LLVM code compiled for this processor, by llvmlite: a tenth of a second, where importing numba takes one."""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm


def compile_code(code: str) -> Any:
    """The engine that holds the functions of the code (`get_function_address`); it must live as long as they are used.

    Loops are unrolled and vectorised with all that this processor has.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
    )
    module = llvm.parse_assembly(code)
    module.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.loop_unrolling = tuning.loop_interleaving = True
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return engine
