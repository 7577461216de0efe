# SPDX-License-Identifier: Apache-2.0
"""What the overlay costs: checking all fingerprints, the prelude, and each patch when its upstream module is imported.

Times beside something of the same run that they can be compared with, so that the ratios hold on other machines.
Needs the environment that scripts/setup.sh makes.

    python benchmarks/overlay.py [--repeats 9] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
UPSTREAM = Path(os.environ.get("RECIPE_UPSTREAM") or REPOSITORY / "upstream")

# Each runs in a fresh process and prints one JSON value, times in seconds.
BARE = "import json; print(json.dumps(0))"
PRELUDE = """
import json, time
start = time.perf_counter()
import verl_patches.prelude_patch
print(json.dumps(time.perf_counter() - start))
"""
VERIFY = """
import contextlib, io, json, sys, time
start = time.perf_counter()
from recipe.audit import cli, fit
from recipe.audit.declarations import collect
from recipe.overlay import fingerprints, source
if {cold}:
    fingerprints._stored = dict
findings = [fit.check(one, source.default_roots(cli.REPOSITORY)) for one in collect()]
took = time.perf_counter() - start
assert not {{"torch", "numpy", "ray", "verl", "vllm", "megatron"}} & sys.modules.keys()
assert all(one.fits for one in findings), [one.line for one in findings if not one.fits]
print(json.dumps([took, len(findings)]))
"""
APPLY = """
import contextlib, importlib, io, json, sys, time
from recipe.audit.declarations import collect
import verl_patches.prelude_patch
from recipe.overlay import engine, hook
patches, rest = [], []

def timed(module, name, into):
    function = getattr(module, name)
    def run(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            into.append(time.perf_counter() - start)
    setattr(module, name, run)

timed(engine, "apply_to", patches)
timed(engine, "check_copies", rest)
start = time.perf_counter()
with contextlib.redirect_stdout(io.StringIO()):
    for module in dict.fromkeys(one.target.module for one in collect()):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(module)
print(json.dumps([patches, rest, time.perf_counter() - start]))
"""


def run(code: str, environment: dict[str, str]) -> object:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"a measured process failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def wall(code: str, environment: dict[str, str]) -> float:
    """Seconds of the whole process, as it measures them from its own start."""
    program = f"import time; exec({code!r}); print(time.clock_gettime(time.CLOCK_BOOTTIME))"
    begin = "import time, subprocess, sys; t = time.clock_gettime(time.CLOCK_BOOTTIME); "
    begin += f"o = subprocess.run([sys.executable, '-c', {program!r}], capture_output=True, text=True, check=True)"
    begin += "; print(float(o.stdout.split()[-1]) - t)"
    return float(str(run(begin, environment)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9, help="fresh processes per figure; the median counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        environment = {
            **os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{UPSTREAM}", "OMP_NUM_THREADS": "1",
            "RECIPE_RUN_DIR": runs,
        }  # fmt: skip
        subprocess.run([sys.executable, "-m", "recipe", "patches", "verify"], cwd=REPOSITORY, env=environment,
                       capture_output=True, check=True)  # fmt: skip
        repeats = range(options.repeats)
        bare = statistics.median(wall(BARE, environment) for _ in repeats)
        started = statistics.median(wall(PRELUDE, environment) for _ in repeats)
        verify = [run(VERIFY.format(cold=False), environment) for _ in repeats]
        cold = [run(VERIFY.format(cold=True), environment) for _ in repeats]
        applied = [run(APPLY, environment) for _ in range(min(3, options.repeats))]
    each = [seconds for figures in applied for seconds in figures[0]]  # type: ignore[index]
    scans = statistics.median(sum(figures[1]) for figures in applied)  # type: ignore[index]
    imports = statistics.median(figures[2] for figures in applied)  # type: ignore[index]
    count = len(each) // len(applied)
    figures = {
        "patches": verify[0][1],  # type: ignore[index]
        "verify_s": statistics.median(figures[0] for figures in verify),  # type: ignore[index]
        "verify_without_record_s": statistics.median(figures[0] for figures in cold),  # type: ignore[index]
        "prelude_ms": 1e3 * (started - bare),
        "prelude_vs_bare_python": (started - bare) / bare,
        "patch_median_ms": 1e3 * statistics.median(each),
        "patch_mean_ms": 1e3 * (sum(each) / len(applied) + scans) / count,
        "overlay_vs_imports": (sum(each) / len(applied) + scans) / imports,
    }
    if options.json:
        print(json.dumps(figures))
        return
    print(f"verify, {figures['patches']} patches       {figures['verify_s']:8.3f} s   (bar 1 s)")
    print(f"  every file parsed anew      {figures['verify_without_record_s']:8.3f} s")
    print(f"prelude                       {figures['prelude_ms']:8.1f} ms  (bar 150 ms)  "
          f"{figures['prelude_vs_bare_python']:.1f} x the start of a bare Python")  # fmt: skip
    print(f"a patch, median of {len(each):3}        {figures['patch_median_ms']:8.2f} ms  (bar 0.3 ms)")
    print(f"  mean, our stand-ins' imports and the search for stale copies included {figures['patch_mean_ms']:.2f} ms")
    print(f"all of it: {100 * figures['overlay_vs_imports']:.2f} % of importing the upstream modules ({imports:.1f} s)")


if __name__ == "__main__":
    main()
