# SPDX-License-Identifier: Apache-2.0
"""Commands of `pasta-server` with many options, a file each; `cli` puts them together."""
