# SPDX-License-Identifier: Apache-2.0
"""ATB plug-in."""
