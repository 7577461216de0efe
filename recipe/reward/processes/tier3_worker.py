# SPDX-License-Identifier: Apache-2.0
"""The program in which math-verify runs. It is run by file and imports math-verify, but nothing of ours.

It says "ready", then reads lines ``[answer, truth, seconds]`` and answers each with "correct", "wrong" or
"unparseable". math-verify reads LaTeX with sympy, which makes its numbers with ``eval``: here that takes nothing but a
numeral, and the process has limits on its memory, on the processor time of each answer, and on writing files.
"""

from __future__ import annotations

import builtins
import json
import logging
import math
import re
import resource
import sys
from collections.abc import Callable
from typing import IO, Any

#: Address space in bytes, several times what sympy needs.
MEMORY = 1 << 30
#: Decimals by which math-verify compares numbers that it cannot compare exactly.
DECIMALS = 12

_NUMERAL = re.compile(r"\s*(?:Integer|Float|Rational)\s*\(\s*'?[0-9.]{1,400}'?\s*\)\s*")
#: What sympy executes before each numeral, and the modules of Python that make classes from source text of their own.
_NAMES = "from sympy import *"
_CLASS_MAKERS = ("collections", "dataclasses")


def main() -> None:
    """Limits the process, imports math-verify, and answers until the end of the input."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.disable(logging.CRITICAL)
    compare = load()
    forbid_code()
    say("ready")
    serve(sys.stdin, compare)


def load() -> Callable[[str, str], str]:
    """math-verify's way from two texts to a verdict. Its own deadlines are off: whoever asks keeps the time."""
    from math_verify import LatexExtractionConfig, parse, verify

    def read(text: str) -> Any:
        return parse(
            f"\\boxed{{{text}}}", extraction_config=[LatexExtractionConfig()], fallback_mode="no_fallback",
            parsing_timeout=None, raise_on_error=True,
        )  # fmt: skip

    def compare(answer: str, truth: str) -> str:
        gold, target = read(truth), read(answer)
        if not gold or not target:
            return "unparseable"
        same = verify(gold, target, float_rounding=DECIMALS, timeout_seconds=None, raise_on_error=True)
        return "correct" if same else "wrong"

    compare("1+\\frac{1.5}{2}\\sin x", "\\int x dx")  # its late imports happen now, before code is forbidden
    return compare


def forbid_code() -> None:
    """From here on ``eval`` and ``exec`` take a numeral and what Python's own makers of classes give them."""
    for name in ("eval", "exec"):
        setattr(builtins, name, _guarded(getattr(builtins, name)))


def _guarded(original: Callable[..., Any]) -> Callable[..., Any]:
    """``eval`` or ``exec``, for harmless code and for callers in Python's own class makers."""

    def guarded(code: Any, *scope: Any, **named: Any) -> Any:
        harmless = isinstance(code, str) and (code == _NAMES or _NUMERAL.fullmatch(code))
        if harmless or sys._getframe(1).f_globals.get("__name__") in _CLASS_MAKERS:
            return original(code, *scope, **named)
        raise PermissionError("code is not run here")

    return guarded


def serve(requests: IO[str], compare: Callable[[str, str], str]) -> None:
    """Answers every request until the end of the input; a limit that is reached ends the process instead."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    for line in requests:
        answer, truth, seconds = json.loads(line)
        used = resource.getrusage(resource.RUSAGE_SELF)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(used.ru_utime + used.ru_stime + seconds) + 1, hard))
        try:
            verdict = compare(answer, truth)
        except MemoryError:
            sys.exit(1)
        except Exception:  # sympy raises anything on what it cannot do
            verdict = "unparseable"
        say(verdict)


def say(text: str) -> None:
    sys.stdout.write(json.dumps(text) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
