# SPDX-License-Identifier: Apache-2.0
"""From a hospital's own scans to a prepared site, and back to the patient's space."""
