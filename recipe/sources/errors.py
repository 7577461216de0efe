# SPDX-License-Identifier: Apache-2.0
"""The error of this room."""


class SourcesError(RuntimeError):
    """Sources could not be brought or are not what they should be; the message is one line and says what to do."""
