# SPDX-License-Identifier: Apache-2.0
"""Our changes to vLLM-Ascend; each file mirrors the module it changes."""
