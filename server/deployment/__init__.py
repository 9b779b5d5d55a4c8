# SPDX-License-Identifier: Apache-2.0
"""Flower as the coordinator uses it: a SuperLink that runs, a run that is followed to its end."""
