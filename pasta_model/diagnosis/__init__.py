# SPDX-License-Identifier: Apache-2.0
"""What a scan tells of the diagnosis: readers trained on each kind of scan alike."""
