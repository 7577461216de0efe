# SPDX-License-Identifier: Apache-2.0
"""``torch.npu``: the device module of the simulated NPU."""

import torch as _torch
from torch_npu.npu import (  # noqa: F401
    amp,
    graphs,
    memory,
    options,
    random,
    streams,
    tensor_types,
    utils,
)
from torch_npu.npu.devices import (  # noqa: F401
    _exchange_device,
    _is_in_bad_fork,
    _lazy_call,
    _lazy_init,
    _maybe_exchange_device,
    can_device_access_peer,
    current_device,
    device,
    device_count,
    device_of,
    get_device_capability,
    get_device_name,
    get_device_properties,
    get_soc_version,
    index_of,
    init,
    ipc_collect,
    is_available,
    is_bf16_supported,
    is_initialized,
    set_device,
    synchronize,
    utilization,
)
from torch_npu.npu.graphs import (  # noqa: F401
    NPUGraph,
    graph,
    graph_pool_handle,
    graph_task_group_begin,
    graph_task_group_end,
    graph_task_update_begin,
    graph_task_update_end,
    is_current_stream_capturing,
    make_graphed_callables,
)
from torch_npu.npu.memory import (  # noqa: F401
    MemPool,
    NPUPluggableAllocator,
    caching_allocator_alloc,
    change_current_allocator,
    empty_cache,
    max_memory_allocated,
    max_memory_cached,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_cached,
    memory_reserved,
    memory_snapshot,
    memory_stats,
    memory_stats_as_nested_dict,
    memory_summary,
    reset_accumulated_memory_stats,
    reset_max_memory_allocated,
    reset_max_memory_cached,
    reset_peak_memory_stats,
    set_per_process_memory_fraction,
    use_mem_pool,
)
from torch_npu.npu.mstx import mstx  # noqa: F401
from torch_npu.npu.options import (  # noqa: F401
    aclnn,
    config,
    conv,
    finalize_dump,
    is_jit_compile_false,
    matmul,
    set_compile_mode,
    set_option,
)
from torch_npu.npu.random import (  # noqa: F401
    default_generators,
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from torch_npu.npu.streams import (  # noqa: F401
    Event,
    ExternalEvent,
    Stream,
    StreamContext,
    SyncLaunchStream,
    current_stream,
    default_stream,
    set_stream,
    stream,
)

globals().update(tensor_types.TENSOR_TYPES)


def get_amp_supported_dtype() -> list[_torch.dtype]:
    """torch.autocast asks the device module."""
    return [_torch.float16, _torch.bfloat16, _torch.float32]


def is_autocast_enabled() -> bool:
    return _torch.is_autocast_enabled("npu")


def set_autocast_enabled(enabled: bool) -> None:
    _torch.set_autocast_enabled("npu", enabled)


def get_autocast_dtype() -> _torch.dtype:
    return _torch.get_autocast_dtype("npu")


def set_autocast_dtype(dtype: _torch.dtype) -> None:
    _torch.set_autocast_dtype("npu", dtype)
