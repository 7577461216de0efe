# SPDX-License-Identifier: Apache-2.0
"""Read, check and document the patches without applying or importing any of them: `python -m recipe patches`."""
