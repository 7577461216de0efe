# SPDX-License-Identifier: Apache-2.0
"""What runs: the launchers of the nodes, their Ray, the driver and its end, and what an attempt leaves to the next."""
