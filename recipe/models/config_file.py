# SPDX-License-Identifier: Apache-2.0
"""config.json of a model on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recipe.models.family import ModelError


def read_config(model: Path) -> dict[str, Any] | None:
    """What config.json in a Hugging Face directory says; None where there is no such file.

    Raises:
        ModelError: it cannot be read, or holds no JSON object; this line begins with the file's name.
    """
    file = model / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(values, dict):
        raise ModelError(f"{file}: holds no JSON object; expected a Hugging Face config.json")
    return values
