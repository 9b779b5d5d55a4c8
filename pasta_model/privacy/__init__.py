# SPDX-License-Identifier: Apache-2.0
"""Differential privacy of subjects: the mechanism, its accounting, and attacks on what is claimed."""
