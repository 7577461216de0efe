# SPDX-License-Identifier: Apache-2.0
"""Where rollout and actor come apart: one step of a run computed again with both engines recorded, token by token."""
