# SPDX-License-Identifier: Apache-2.0
"""The simulated NPU: the ``torch_npu`` API on host memory.

The order below matters: refuse where the real thing is installed; register the device with torch; attach the Python API
(``torch.npu``); register the ``hccl`` backend; install the simulated operators; say so once.
"""

from typing import Any


def _autoload() -> None:
    """Entry point ``torch.backends``. Importing this package did all the work.

    Defined before torch is imported: `import torch_npu` imports torch, which loads this entry point at once.
    """


from torch_npu import _startup  # noqa: E402

_startup.refuse_real_torch_npu()
_startup.stand_in_for_cann()

import torch  # noqa: E402

_startup.check_build()
torch.utils.rename_privateuse1_backend("npu")
from torch_npu import _C, _sim, npu  # noqa: E402

_startup.register_device_module(npu)

from torch_npu import distributed  # noqa: E402

distributed.register()

from torch_npu import atb, contrib, profiler, sim, utils  # noqa: E402
from torch_npu._tensor import empty_with_swapped_memory, unsupported_dtype  # noqa: E402
from torch_npu._version import __version__  # noqa: E402
from torch_npu.npu.formats import Format  # noqa: E402

_ops = _startup.load_operators()
globals().update(_ops.PUBLIC)

_startup.become_strict()
_startup.settle_at_exit()
_startup.announce()


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module 'torch_npu' has no attribute {name!r}")
    raise AttributeError(
        f"torch_npu.{name} is not simulated; simulated operators are the keys of torch_npu.ops.PUBLIC "
        "(npu_sim/src/torch_npu/ops)"
    )


__all__ = [
    "_C",
    "Format",
    "__version__",
    "_sim",
    "atb",
    "contrib",
    "distributed",
    "empty_with_swapped_memory",
    "npu",
    "profiler",
    "sim",
    "unsupported_dtype",
    "utils",
]
