# SPDX-License-Identifier: Apache-2.0
"""Makes foreign text fit to be shown: a model's answer, a data set's problem, a log line, another machine's message.

Such text may move a terminal's cursor, colour or hide what follows, turn its direction round, or break a line in two.
Standard library only.
"""

from __future__ import annotations

import linecache
import re
import traceback
import unicodedata

# Escape sequences of a terminal: CSI; OSC and the like with their text, if it is terminated; two-byte ones. No
# character is part of two attempts to match, so the time is linear in the text.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?|(?:\x1b[\]P^_X]|[\x9d\x90\x9e\x9f\x98])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
)
# Characters that are invisible or change the direction of text: zero-width, bidirectional and tag characters, invisible
# operators, fillers, variation selectors.
_HIDDEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff]"
)
_REPLACEMENT = "\ufffd"


def printable(text: str, keep: str = "") -> str:
    """`text` as one line of visible characters, without effect on a terminal.

    Escape sequences and what cannot be seen are left out; every other control character, line and paragraph separator
    becomes a blank, and what is no character (a lone surrogate, a private or unassigned one) U+FFFD.

    Args:
        text: from any source.
        keep: control characters that stay as they are, such as "\\n" and "\\t".

    >>> printable("a\\x1b[31mred\\x1b[0m\\rb\\u202ec")
    'ared bc'
    """
    if text.isascii() and text.isprintable():
        return text
    bare = _HIDDEN.sub("", _ESCAPES.sub("", text))
    return "".join(letter if letter in keep else _shown(letter) for letter in bare)


def printable_lines(text: str) -> str:
    """The same for text of several lines, such as an answer: line ends and tabs stay, all line ends as "\\n"."""
    return printable(text.replace("\r\n", "\n").replace("\r", "\n"), keep="\n\t")


def error_text(error: BaseException) -> str:
    """Type and message of an exception in one line; the type alone where there is no message, or none can be made."""
    try:
        message = " ".join(str(error).split())
    except Exception:  # a message that is itself made from what is broken
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def error_with_place(error: BaseException) -> str:
    """`error_text`; of an error without a message, such as a bare assertion, also the statement that raised it."""
    text, places = error_text(error), traceback.extract_tb(error.__traceback__)
    if text != type(error).__name__ or not places:
        return text
    place = places[-1]
    first = place.lineno or 0
    # Python 3.10 does not know where a statement ends.
    numbers = range(first, (getattr(place, "end_lineno", None) or first) + 1)
    lines = (linecache.getline(place.filename, number).strip().removesuffix("\\") for number in numbers)
    return f"{text} at {place.filename}:{first}: {' '.join(line.strip() for line in lines)}"


def spelled_out(text: str) -> str:
    """`text` with an escape such as `\\x1b` for whatever `printable` would take out, line ends excepted.

    For people who look for what is wrong with their own data: nothing is hidden.
    """
    return "".join(
        letter if letter == "\n" or (letter.isprintable() and not _HIDDEN.match(letter)) else _escaped(letter)
        for letter in text
    )


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape").decode("ascii")


def _shown(letter: str) -> str:
    if letter.isprintable() or letter == " ":
        return letter
    category = unicodedata.category(letter)
    if category in ("Cc", "Zl", "Zp"):
        return " "
    if category == "Zs":
        return " "
    return "" if category == "Cf" else _REPLACEMENT


_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# Ray's prefix before a line of an actor.
_PREFIX = re.compile(r"^\((?:[\w:. ]+ )?pid=\d+[^)]*\)\s?")


def uncoloured(line: str) -> str:
    """A log line without its colour codes."""
    return _COLOUR.sub("", line)


def plain(line: str) -> str:
    """A log line without colours and without Ray's `(Actor pid=...)` prefix."""
    return _PREFIX.sub("", uncoloured(line)).rstrip()
