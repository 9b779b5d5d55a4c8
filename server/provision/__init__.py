# SPDX-License-Identifier: Apache-2.0
"""From consortium.toml to keys, certificates, the server's door and a kit for each site."""
