# SPDX-License-Identifier: Apache-2.0
"""The overlay is in place before any test module here imports an upstream, as in a worker."""

import verl_patches.prelude_patch  # noqa: F401
