# SPDX-License-Identifier: Apache-2.0
"""What a run needs before it is started: memory by phase, traffic and time of a step, the smallest cluster."""
