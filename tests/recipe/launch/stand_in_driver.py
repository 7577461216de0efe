# SPDX-License-Identifier: Apache-2.0
"""A driver without Ray: metrics of each step, and a child that outlives it.

STAND_IN_STEP in the environment is the step after which it waits until the file STAND_IN_GO is there, or for ever.
With STAND_IN_FAILS it then fails, as the real one does, with that message.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from recipe.launch.failure import record_failure

overrides = dict(word.lstrip("+").split("=", 1) for word in sys.argv[1:] if "=" in word)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
for step in range(1, int(overrides["trainer.total_training_steps"]) + 1):
    data = {"timing_s/step": 0.1, "critic/score/mean": 0.5, "response_length/mean": 9.0}
    with open(os.environ["VERL_FILE_LOGGER_PATH"], "a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step, "data": data}) + "\n")
    if step == int(os.environ.get("STAND_IN_STEP", "0")):
        while not Path(os.environ["STAND_IN_GO"]).exists():
            time.sleep(0.1)
        if os.environ.get("STAND_IN_FAILS"):
            problem = OSError(os.environ["STAND_IN_FAILS"])
            record_failure(problem)
            raise problem
