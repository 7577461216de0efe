# SPDX-License-Identifier: Apache-2.0
"""The models that can be trained here: one description for each family, which weights, plan, checks, show and
rehearsal read."""
