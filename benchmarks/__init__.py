# SPDX-License-Identifier: Apache-2.0
"""Commands that time a part of the project; ratios within one run, written down in RESULTS.md."""
