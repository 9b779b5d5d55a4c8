# SPDX-License-Identifier: Apache-2.0
"""All that is asked of synthetic PETs beyond their scores: z maps, readers, uncertainty, who is shown."""
