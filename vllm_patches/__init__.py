# SPDX-License-Identifier: Apache-2.0
"""Our changes to vLLM; each file mirrors the module it changes."""
