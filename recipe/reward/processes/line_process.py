# SPDX-License-Identifier: Apache-2.0
"""A child process that is asked in lines of JSON and answers in lines of JSON, within a deadline."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

#: Longest answer, in characters: a child that never ends its line must not fill our memory.
LONGEST_LINE = 10_000

Reply = TypeVar("Reply")


class LineProcess:
    """A child that is started when it is asked and does not run, and ended when it is late or its answer is none.

    Args:
        command: the program and its arguments.
        settings: the first line that it is sent; None: none.
        environment: its environment variables; None: those of this process.
        quiet: whether its standard error is dropped.
    """

    def __init__(
        self, command: Sequence[str], settings: Any = None, environment: Mapping[str, str] | None = None,
        quiet: bool = False,
    ) -> None:  # fmt: skip
        self.command, self.settings, self.quiet = list(command), settings, quiet
        self.environment = None if environment is None else dict(environment)
        self.process: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """The id of the process, while it runs."""
        return self.process.pid if self.process is not None and self.process.poll() is None else None

    def ask(self, request: Any, count: int, seconds: float, parse: Callable[[Any], Reply]) -> tuple[list[Reply], bool]:
        """Sends ``request`` and waits for ``count`` answers; with None as request, the process speaks first.

        Returns the parsed answers, and whether the process was ended because it was late. Where they are fewer than
        ``count``, it has been ended: it died, was late, or wrote what ``parse`` raises ValueError or TypeError for.
        """
        process = self.process if self.process is not None and self.pid is not None else self._start()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def kill() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        answers: list[Reply] = []
        try:
            if request is not None:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            while len(answers) < count and (line := process.stdout.readline(LONGEST_LINE)).endswith("\n"):
                answers.append(parse(json.loads(line)))
        except (OSError, ValueError, TypeError):
            pass  # the process has ended, or writes what is no answer
        finally:
            timer.cancel()
        if len(answers) < count:
            self.end()
        return answers, late.is_set() and len(answers) < count

    def end(self) -> None:
        """Ends the process, where one runs."""
        if self.process is None:
            return
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # what was not sent any more
                pass
        self.process = None

    def _start(self) -> subprocess.Popen[str]:
        self.end()
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="ascii",
            env=self.environment, stderr=subprocess.DEVNULL if self.quiet else None,
        )  # fmt: skip
        if self.settings is not None:
            assert self.process.stdin is not None
            self.process.stdin.write(json.dumps(self.settings) + "\n")
        return self.process
