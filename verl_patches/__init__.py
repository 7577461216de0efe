# SPDX-License-Identifier: Apache-2.0
"""Our changes to verl; each file mirrors the verl module it changes."""
