# SPDX-License-Identifier: Apache-2.0
"""A stand-in for `ray start --block` that Ray's own limit ends, as often as it is told to.

Arguments: Ray's directory, a file that counts the starts, and how many of them fail.
"""

from __future__ import annotations

SLOW_RAY = """
import pathlib, subprocess, sys, time
temp, count, failures = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
(temp / f"session_{number}").mkdir(parents=True)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
if number <= failures:
    raise Exception("The current node timed out during startup. This could happen because some of the raylet failed")
print("Ray runtime started.", flush=True)
time.sleep(600)
"""
