# SPDX-License-Identifier: Apache-2.0
"""What an NPU does not take, as facts with their sources, and the strict level that refuses it.

The facts are rows of ``table.TABLE`` (operator, argument, what is documented, source). The checks and the page
docs/STRICTNESS.md are made from them; nothing else in the simulator knows a limit that the arithmetic does not need.

``NPU_SIM_STRICT`` is read when ``torch_npu`` is imported:

========== =============================================================================================================
value      meaning
========== =============================================================================================================
``0``      the default: sizes and dtypes that no NPU takes are computed all the same, as the tiny model needs
``1``      what is documented as not taken is refused; what is expected but not documented warns
``float32`` like 1, but float32 passes where a fused operator takes half types only, for comparisons with a reference
========== =============================================================================================================
"""

from torch_npu.limits.fact import Level, Refused
from torch_npu.limits.strictness import check, level, set_level

__all__ = ["Level", "Refused", "check", "level", "set_level"]
