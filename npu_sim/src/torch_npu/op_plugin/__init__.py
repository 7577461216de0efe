# SPDX-License-Identifier: Apache-2.0
"""Plug-in libraries; only the names that vLLM-Ascend imports."""
