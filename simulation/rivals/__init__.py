# SPDX-License-Identifier: Apache-2.0
"""Other methods in the same harness: MONAI networks on the slabs, steps and schedule that PASTA has."""
