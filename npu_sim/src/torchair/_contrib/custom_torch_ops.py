# SPDX-License-Identifier: Apache-2.0
"""The real module registers ``torch.ops.npu_inference``; the pinned V1 path calls those operators in ``torch_npu``."""
