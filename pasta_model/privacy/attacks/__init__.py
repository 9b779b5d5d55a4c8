# SPDX-License-Identifier: Apache-2.0
"""Attacks on what we claim: each one a measurement from below, none of them a guarantee."""
