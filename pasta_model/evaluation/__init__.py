# SPDX-License-Identifier: Apache-2.0
"""Scores of synthetic PETs beside the real ones: by subject, by group, with intervals."""
