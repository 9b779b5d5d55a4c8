# SPDX-License-Identifier: Apache-2.0
"""Abnormality maps: age-adjusted norms of cognitively normal people, z maps, surfaces, overlap."""
