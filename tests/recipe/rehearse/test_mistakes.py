# SPDX-License-Identifier: Apache-2.0
"""Mistakes at true size that nothing sees before a die does, or late: a rehearsal ends with one line about each.

Every row is a shipped run file with a mistake made. Without it the same command ends otherwise: `clean`, where nothing
else says so, is what is then to be found in its place.
"""
