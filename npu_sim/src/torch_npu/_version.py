# SPDX-License-Identifier: Apache-2.0
"""What this package says it is. The local part keeps anyone from taking it for a release of torch_npu."""

__version__ = "2.7.1+simulated"
CANN_VERSION = "8.2.RC1"  # the release whose operator semantics are simulated
SOC_NAME = "Ascend910_9382"  # an A3 die
SOC_VERSION = 253  # the number that torch_npu gives that die
