# SPDX-License-Identifier: Apache-2.0
"""Whether an MRI is like those that the federation trained on: features, their sums, a distance."""
