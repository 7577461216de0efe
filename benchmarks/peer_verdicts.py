# SPDX-License-Identifier: Apache-2.0
"""What the outcome of a test means, and the recorded list it is compared with.

A record (`peer_records/NAME.toml`) has the reasons for which a test does not pass, each once, and the tests by reason:

    [reasons.fft]
    verdict = "refused"                     # or "not applicable"
    why = "no operator of FFT is simulated"
    error = ["NotImplementedError"]         # all three narrow it down; the first reason that fits is taken
    says = ["aten::_fft"]                   # one of these is part of the message
    tests = ["test/*/test_fft*"]            # one of these patterns fits the test's name; "[" and "]" mean themselves
    run = false                             # where a test is not even tried; then by tests alone

    [tests]
    passed = 812
    unseen = ["test/test_base_ops/test_x.py"]                   # no run has come to these files yet: not compared
    [tests.fft]
    "test/test_base_ops/test_stft.py" = 3                       # all three tests of the file
    "test/test_base_ops/test_conv.py" = ["TestConv::test_fft"]  # these of the file

`common.toml` has the reasons of all suites, which are looked at last. What fits no reason is "wrong".
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECORDS = Path(__file__).resolve().parent / "peer_records"
# The error that peer_worker.py gives for a test that was not tried.
NOT_RUN = "NotRun"
PASSED, REFUSED, NOT_APPLICABLE, WRONG = VERDICTS = ("passed", "refused", "not applicable", "wrong")


class RecordError(ValueError):
    """A record that does not say what it must."""


@dataclass(frozen=True)
class Reason:
    """Why tests do not pass, and how such a test is known."""

    name: str
    verdict: str
    why: str
    error: tuple[str, ...] = ()
    says: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    run: bool = True

    def fits(self, test: str, error: str, says: str) -> bool:
        return (
            self.run == (error != NOT_RUN)
            and (not self.error or error in self.error)
            and (not self.says or any(part in says for part in self.says))
            and (not self.tests or any(fnmatchcase(test, pattern) for pattern in self.tests))
        )


@dataclass(frozen=True)
class Judged:
    """A test's verdict; `reason` is empty for "passed" and "wrong"."""

    test: str
    verdict: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.verdict} ({self.reason})" if self.reason else self.verdict


def judge(result: Mapping[str, Any], reasons: Iterable[Reason]) -> Judged:
    """The verdict over a result as `peer_worker.py` gives it."""
    if result["outcome"] == "passed":
        return Judged(result["test"], PASSED)
    for reason in reasons:
        if reason.fits(result["test"], result["error"], result["says"]):
            return Judged(result["test"], reason.verdict, reason.name)
    return Judged(result["test"], WRONG)


def file_of(test: str) -> str:
    return test.partition("::")[0]


@dataclass(frozen=True)
class Record:
    """What a suite's tests came to when somebody looked at each of them."""

    reasons: tuple[Reason, ...]
    passed: int
    whole_files: Mapping[str, tuple[str, int]]
    """File -> (reason, number of its tests), where all its tests have one reason."""
    single_tests: Mapping[str, str]
    """Test -> reason, in other files."""
    unseen: frozenset[str] = frozenset()
    """Files that are not recorded."""

    def reason_of(self, test: str) -> str:
        """Empty where the test is not listed: it passed, or was not there."""
        whole = self.whole_files.get(file_of(test))
        return whole[0] if whole else self.single_tests.get(test, "")


def read_reasons(file: Path, table: Mapping[str, Any]) -> tuple[Reason, ...]:
    reasons = []
    for name, fields in table.items():
        if fields.get("verdict") not in (REFUSED, NOT_APPLICABLE) or not fields.get("why"):
            raise RecordError(f'{file}: reasons.{name} needs a why and the verdict "{REFUSED}" or "{NOT_APPLICABLE}"')
        unknown = fields.keys() - {"verdict", "why", "error", "says", "tests", "run"}
        if unknown or not fields.keys() & {"error", "says", "tests"}:
            raise RecordError(
                f"{file}: reasons.{name} is known by error, says and tests, at least one; {unknown or ''}"
            )
        lists = {key: tuple(fields.get(key, ())) for key in ("error", "says", "tests")}
        lists["tests"] = tuple(literal_brackets(pattern) for pattern in lists["tests"])
        run = fields.get("run", True)
        reasons.append(Reason(name, fields["verdict"], " ".join(fields["why"].split()), **lists, run=run))
    return tuple(reasons)


def literal_brackets(pattern: str) -> str:
    """Names of tests have [ and ] around their parameters: no sets of characters."""
    return pattern.replace("[", "[[]")


def read_record(name: str, directory: Path = RECORDS) -> Record:
    """The record of a suite, with the reasons of `common.toml`. A suite without a file has an empty one."""
    common, own = directory / "common.toml", directory / f"{name}.toml"
    tables = {file: tomllib.loads(file.read_text("utf-8")) if file.is_file() else {} for file in (own, common)}
    reasons = [reason for file, table in tables.items() for reason in read_reasons(file, table.get("reasons", {}))]
    names = Counter(reason.name for reason in reasons)
    tests: dict[str, Any] = dict(tables[own].get("tests", {}))
    passed, unseen = tests.pop("passed", 0), frozenset(tests.pop("unseen", ()))
    if twice := [name for name, times in names.items() if times > 1] or tests.keys() - names.keys():
        raise RecordError(f"{own}: a reason is there twice, or is not there: {', '.join(sorted(twice))}")
    whole_files: dict[str, tuple[str, int]] = {}
    single_tests: dict[str, str] = {}
    for reason, files in tests.items():
        for file, listed in files.items():
            if isinstance(listed, int):
                whole_files[file] = (reason, listed)
            else:
                single_tests |= {f"{file}::{test}": reason for test in listed}
    return Record(tuple(reasons), passed, whole_files, single_tests, unseen)


def differences(judged: Iterable[Judged], record: Record, whole_suite: bool) -> list[str]:
    """How a run differs from the record, a line each; `whole_suite`: whatever is recorded should have run.

    A test that is "wrong" is no difference here: it is counted by itself.
    """
    judged = [one for one in judged if file_of(one.test) not in record.unseen]
    verdicts = {reason.name: reason.verdict for reason in record.reasons}
    lines = []
    for one in judged:
        recorded = record.reason_of(one.test)
        if one.verdict != WRONG and recorded != one.reason:
            before = Judged(one.test, verdicts[recorded], recorded) if recorded else "passed, or not there"
            lines.append(f"{one.test}: recorded {before}, now {one}")
    if not whole_suite:
        return lines
    ran = {one.test for one in judged}
    counts = Counter(file_of(test) for test in ran)
    lines += [f"{test}: recorded, but not there" for test in record.single_tests if test not in ran]
    for file, (_, number) in record.whole_files.items():
        if counts[file] != number:
            lines.append(f"{file}: recorded {number} tests, there are {counts[file]}")
    passed = sum(one.verdict == PASSED for one in judged)
    if passed != record.passed and not lines:
        lines.append(f"recorded {record.passed} passed tests, now {passed}")
    return lines


def tests_table(judged: Iterable[Judged], unseen: Iterable[str] = ()) -> str:
    """The `[tests]` part of a record that says what these came to. Wrong tests are not recorded.

    unseen: files that are still to be run; what is there of their tests is left out.
    """
    unseen = sorted(unseen)
    judged = [one for one in judged if file_of(one.test) not in unseen]
    by_file: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        by_file[file_of(one.test)].append(one)
    by_reason: dict[str, list[str]] = defaultdict(list)
    for file in sorted(by_file):
        tests = by_file[file]
        reasons = Counter(one.reason for one in tests)
        for reason in sorted(reasons.keys() - {""}):
            if reasons[reason] == len(tests):
                listed = str(len(tests))
            else:
                names = sorted(one.test.partition("::")[2] for one in tests if one.reason == reason)
                listed = "[" + ", ".join(map(quoted, names)) + "]"
                if len(listed) + len(file) > 110:
                    listed = "[\n" + "".join(f"    {quoted(name)},\n" for name in names) + "]"
            by_reason[reason].append(f"{quoted(file)} = {listed}")
    passed = sum(one.verdict == PASSED for tests in by_file.values() for one in tests)
    parts = [f"[tests]\npassed = {passed}\n"]
    if unseen:
        parts[0] += "unseen = [\n" + "".join(f"    {quoted(file)},\n" for file in unseen) + "]\n"
    parts += [f"[tests.{reason}]\n" + "\n".join(lines) + "\n" for reason, lines in sorted(by_reason.items())]
    return "\n".join(parts)


def quoted(text: str) -> str:
    """A TOML string: what would need an escape is written as one."""
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return f'"{escaped}"'


def write_record(name: str, judged: Iterable[Judged], unseen: Iterable[str] = (), directory: Path = RECORDS) -> Path:
    """Put the `[tests]` part of a record in the place of what it had; reasons and comments above it stay."""
    file = directory / f"{name}.toml"
    text = file.read_text("utf-8") if file.is_file() else "# SPDX-License-Identifier: Apache-2.0\n\n"
    head = text[:at] if (at := text.find("[tests]\n")) >= 0 else text
    file.write_text(head + tests_table(judged, unseen), encoding="utf-8")
    return file
