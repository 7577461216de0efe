# SPDX-License-Identifier: Apache-2.0
"""What a rule of the watch does when it is broken; the run file says which."""

from __future__ import annotations

STOP_RUN, WARN, OFF = ACTIONS = ("stop", "warn", "off")
