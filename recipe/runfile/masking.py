# SPDX-License-Identifier: Apache-2.0
"""Secret values of `[environment]`: API keys, tokens, passwords.

The processes of a run get them; whatever is written, shown or sent has `HIDDEN` in their place. A variable is taken for
secret by its name, or because its value is an address with a password in it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import sys
from collections.abc import Mapping
from typing import Any

from recipe.runfile.errors import LaunchError
from recipe.runfile.toml_text import as_toml

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HIDDEN = "(hidden)"
_WORDS = frozenset(
    (
        *("APIKEY", "AUTH", "AUTHORIZATION", "BEARER", "COOKIE", "CREDENTIAL", "CREDENTIALS", "CREDS", "KEY", "KEYS"),
        *("PASS", "PASSPHRASE", "PASSWD", "PASSWORD", "PASSWORDS", "PAT", "PRIVATE", "PWD", "SECRET", "SECRETS"),
        "TOKEN",
    )
)
# Such words without a separator: HFTOKEN, PGPASSWORD, AWS_SECRETACCESSKEY.
_ENDS = ("APIKEY", "ACCESSKEY", "SECRETKEY", "PRIVATEKEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD")
# What such a name ends with when the value only says where or how: SSL_KEY_FILE, RAY_AUTH_TOKEN_PATH, RAY_AUTH_MODE.
_NO_SECRET = ("DIR", "FILE", "MODE", "PATH", "SOCK", "TYPE")
_WITH_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@]*@")
_SETTING = re.compile(
    r"""(?P<name>(?<![A-Za-z0-9_])[A-Za-z_][A-Za-z0-9_]*)(?P<between>["']?[ \t]*=[ \t]*)"""
    r"""(?P<value>"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
)
# Shorter values would also match parts of unrelated words in files and messages.
_SHORTEST_FOUND = 6


def is_secret(name: str, value: str = "") -> bool:
    """Whether the value of a variable of that name is not to be seen.

    >>> is_secret("WANDB_API_KEY"), is_secret("TOKENIZERS_PARALLELISM"), is_secret("HTTPS_PROXY", "http://a:b@host")
    (True, False, True)
    """
    words = re.split(r"[^A-Z0-9]+", name.upper())
    named = any(word in _WORDS or word.endswith(_ENDS) for word in words) and words[-1] not in _NO_SECRET
    return named or has_password(value)


def has_password(value: str) -> bool:
    """Whether a text is an address with a password in it, as http://name:password@host is."""
    return _WITH_PASSWORD.search(value) is not None


def masked(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` with `HIDDEN` for every secret value."""
    return {name: HIDDEN if is_secret(name, value) else value for name, value in environment.items()}


def comparable_environment(environment: Mapping[str, str], key: bytes) -> dict[str, str]:
    """`environment` with a digest for every secret value: holders of `key` can compare them, and nobody reads them."""

    def digest(name: str, value: str) -> str:
        return hmac.new(key, f"{name}={value}".encode(), hashlib.sha256).hexdigest()[:12]

    return {
        name: f"(hidden, digest {digest(name, value)})" if is_secret(name, value) else value
        for name, value in environment.items()
    }


def masked_run_file(text: str) -> str:
    """A run file's text with `HIDDEN` for the secret values of its `[environment]`, and otherwise as it is.

    Where a secret cannot be replaced in the text safely, the file is written anew from its values, without comments. In
    text that is not TOML, everything that looks like the setting of a secret is masked.
    """
    commented = _SETTING.sub(_without_value, text)
    try:
        values = tomllib.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        return commented
    environment = values.get("environment")
    variables = environment if isinstance(environment, dict) else {}
    secrets = {name: value for name, value in variables.items() if is_secret(name, str(value))}
    if not secrets:
        return text if commented == text or not _same(commented, values) else commented
    wanted = values | {"environment": variables | dict.fromkeys(secrets, HIDDEN)}
    masked_text = _without(commented, [str(value) for value in secrets.values()])
    return masked_text if _same(masked_text, wanted) else as_toml(wanted)


def scrubbed(text: str, environment: Mapping[str, str]) -> str:
    """`text` with `HIDDEN` wherever a secret value of `environment` stands in it."""
    return _without(text, [value for name, value in environment.items() if is_secret(name, value)])


def scrub(error: LaunchError, environment: Mapping[str, str]) -> None:
    """Take the secret values of `environment` out of an error's message."""
    error.args = (scrubbed(str(error), environment),)


def _without_value(setting: re.Match[str]) -> str:
    name, value = setting["name"], setting["value"]
    return f'{name}{setting["between"]}"{HIDDEN}"' if is_secret(name, value) else setting[0]


def _without(text: str, values: list[str]) -> str:
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST_FOUND:
            text = text.replace(value, HIDDEN)
    return text


def _same(text: str, values: Mapping[str, Any]) -> bool:
    try:
        return bool(tomllib.loads(text.removeprefix("\ufeff")) == values)
    except ValueError:
        return False
