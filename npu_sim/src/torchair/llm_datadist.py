# SPDX-License-Identifier: Apache-2.0
"""KV transfer between machines is not simulated; the module exists because callers import it."""

from typing import Any


def create_npu_tensors(*args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(
        "torchair.llm_datadist.create_npu_tensors is not simulated (KV transfer between machines)"
    )
