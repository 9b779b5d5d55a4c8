# SPDX-License-Identifier: Apache-2.0
"""nginx in front of SuperLink: mutual TLS, and only the paths of the sites."""

from pathlib import Path

from pasta_model.files import write_text
from server.provision.consortium import Plan
from server.provision.rendering import render


def write_proxy(server: Path, plan: Plan) -> None:
    """Write nginx.conf into the server's folder, and the folder of nginx's logs."""
    (server / "nginx").mkdir(mode=0o700, exist_ok=True)
    ipv6 = any(":" in name for name in plan.names)
    write_text(server / "nginx.conf", render("nginx.conf.j2", plan=plan, ipv6=ipv6))
