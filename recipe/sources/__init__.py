# SPDX-License-Identifier: Apache-2.0
"""Bring the pinned upstreams of `upstreams.toml` into `upstream/`, verified, and check that they are still so."""
