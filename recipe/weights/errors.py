# SPDX-License-Identifier: Apache-2.0
"""The one error of the weights tools: a line that names the file and the tensor."""


class WeightsError(Exception):
    """Input or output that cannot be used; the message says what was found, what was expected and what to do."""
