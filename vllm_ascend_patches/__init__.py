# SPDX-License-Identifier: Apache-2.0
"""Our changes to vLLM-Ascend, one module per changed upstream module."""
