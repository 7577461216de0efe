# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a patch.

None of these is an ImportError: verl and vLLM catch ImportError around optional imports, and a patch that failed
must not turn into an upstream that quietly runs without it.
"""


class OverlayError(RuntimeError):
    """Base of all errors of the overlay; the message is one line that names the patch."""


class BadDeclaration(OverlayError):
    """A `@patch` that is not well formed: wrong target syntax, not a fingerprint, not in the target's mirror."""


class ConflictError(OverlayError):
    """Two patches on one target."""


class MissingTarget(OverlayError):
    """The upstream has no such module, class, function or value."""


class DriftError(OverlayError):
    """The target is not the one that the patch was written for."""


class PatchFailed(OverlayError):
    """A mirror could not be imported, or a patch raised or did not stay where it was put."""
