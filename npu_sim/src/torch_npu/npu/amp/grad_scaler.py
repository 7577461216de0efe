# SPDX-License-Identifier: Apache-2.0
"""Loss scaling for float16."""

import torch
from torch.amp.grad_scaler import OptState, _MultiDeviceReplicator, _refresh_per_optimizer_state


class GradScaler(torch.amp.GradScaler):
    """``torch.amp.GradScaler("npu", ...)``."""

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__(
            "npu",
            init_scale=init_scale,
            growth_factor=growth_factor,
            backoff_factor=backoff_factor,
            growth_interval=growth_interval,
            enabled=enabled,
        )


__all__ = ["GradScaler", "OptState", "_MultiDeviceReplicator", "_refresh_per_optimizer_state"]
