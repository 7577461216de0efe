# SPDX-License-Identifier: Apache-2.0
"""vLLM looks at model classes in this process."""

from __future__ import annotations

import os

import pytest
from vllm.model_executor.models import registry


class Model:
    """A model class to look at, which says where it was looked at."""


@pytest.mark.proves("vllm_patches.model_executor.models.registry:_run_in_subprocess")
def test_a_model_class_is_inspected_without_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry._ModelInfo, "from_model_cls", staticmethod(lambda model: (model, os.getpid())))
    lazy = registry._LazyRegisteredModel(module_name=__name__, class_name="Model")
    monkeypatch.setattr(registry._LazyRegisteredModel, "load_model_cls", lambda self: Model)
    assert lazy.inspect_model_cls() == (Model, os.getpid())
