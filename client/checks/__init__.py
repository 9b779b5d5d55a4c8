# SPDX-License-Identifier: Apache-2.0
"""What `pasta-client check` looks at, a file each: the machine, the keys, the way to the server."""
