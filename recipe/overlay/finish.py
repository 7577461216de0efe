# SPDX-License-Identifier: Apache-2.0
"""Call an action at the moment when a module has executed: not before, and before any other code can use the module.

wrapt calls a post-import hook at once for every module in `sys.modules`, also for one that is still executing (the
prelude is imported from the middle of two of them), and forgets the hook when the import fails.  Here such a module
is watched through its spec: importlib sets `spec._initializing` to False as its last act, still under the module's
import lock.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import wrapt

Action = Callable[[ModuleType], None]
_ATTRIBUTE = "_recipe_overlay_actions"


class _Finishing:
    """Mixed into the class of a spec whose module is executing, until it has."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_initializing" and not value:
            try:
                _finish(self)
            finally:
                object.__setattr__(self, name, value)  # no super(): the class has changed back by now
        else:
            object.__setattr__(self, name, value)


def _finish(spec: Any) -> None:
    actions = vars(spec).pop(_ATTRIBUTE, None)
    if actions is None:
        return
    spec.__class__ = type(spec).__mro__[2]
    module = sys.modules.get(spec.name)
    # A module that failed is no longer there, or it is another attempt's: its hooks wait for the next import.
    alive = module is not None and getattr(module, "__spec__", None) is spec
    for index, action in enumerate(actions):
        if not alive:
            when_executed(spec.name, action)
            continue
        try:
            assert module is not None
            action(module)
        except BaseException:
            # The import fails as if the module itself had raised, and every hook is due again at the next one.
            sys.modules.pop(spec.name, None)
            for due in actions[index:]:
                when_executed(spec.name, due)
            raise


def executing(module: ModuleType) -> bool:
    """Whether the module's own code is still running, in whichever thread."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def after_execution(module: ModuleType, action: Action) -> None:
    """Call `action(module)` when the module has executed: now, or as the last act of its import."""
    spec: Any = getattr(module, "__spec__", None)
    if spec is None or not executing(module):
        action(module)
        return
    waiting = vars(spec).get(_ATTRIBUTE)
    if waiting is not None:
        waiting.append(action)
        return
    vars(spec)[_ATTRIBUTE] = [action]
    base = type(spec)
    spec.__class__ = type(base.__name__, (_Finishing, base), {"__module__": base.__module__})
    if not executing(module):  # its import ended in another thread meanwhile, which missed this action
        _finish(spec)


def when_executed(name: str, action: Action) -> None:
    """Call `action(module)` once, right after module `name` has executed; at once when it has already.

    An exception of the action fails the import, and the action stays due.
    """
    wrapt.register_post_import_hook(lambda module: after_execution(module, action), name)
