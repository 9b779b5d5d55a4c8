# SPDX-License-Identifier: Apache-2.0
"""Digital twins: a synthetic cohort of paired T1 MRI and FDG-PET. These are not patients."""
