# SPDX-License-Identifier: Apache-2.0
"""Metrics: pure functions of arrays, in SUVR; no global state, no files."""
