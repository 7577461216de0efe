# SPDX-License-Identifier: Apache-2.0
"""The errors of the weight tools: one line that names the file and the tensor."""


class WeightsError(Exception):
    """Input or options that cannot be used; the message says what was found, what was expected and what to do."""


class InterruptedJobError(WeightsError):
    """The machine failed, not the input (a full disk, a read error): what is done is kept, and a rerun resumes."""
