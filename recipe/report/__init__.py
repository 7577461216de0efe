# SPDX-License-Identifier: Apache-2.0
"""What a run leaves for a person: events, the summary, plots and the report page."""
