# SPDX-License-Identifier: Apache-2.0
"""Studies: one file names cohort, sites, methods and seeds; one command runs, measures and reports all."""
