# SPDX-License-Identifier: Apache-2.0
"""Our changes to MindSpeed, one mirror file for each upstream module (see recipe.overlay)."""
