# SPDX-License-Identifier: Apache-2.0
"""What a person reads after a run: tables, figures, one page of HTML."""
