# SPDX-License-Identifier: Apache-2.0
"""What a scan tells of the diagnosis: a network and a classical reader, trained on each kind of scan alike."""
