# SPDX-License-Identifier: Apache-2.0
"""Rule rewards for verl's ``custom_reward_function``. They grade text written by a model: nothing here evaluates it,
and every step is linear in its length."""
