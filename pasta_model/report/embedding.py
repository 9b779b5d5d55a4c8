# SPDX-License-Identifier: Apache-2.0
"""What a page carries inside: pictures, styles and scripts, and the policy that lets only these run."""

import base64
import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.resources import files

from pasta_model.report.page import Viewer

NIIVUE = "NiiVue 0.69.0"
NIIVUE_SHA256 = "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


def png_uri(png: bytes) -> str:
    """Return a PNG as the address of an image."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def description(viewer: Viewer) -> str:
    """Return all of a viewer but its volumes as JSON that can stand inside a script element."""
    content = {
        "layers": [asdict(layer) for layer in viewer.layers],
        "cases": [{"rule": case.rule, "window": case.window} for case in viewer.cases],
        "first": viewer.first,
        "start": viewer.start,
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def style(*, viewer: bool) -> str:
    """Return the style sheet of a page."""
    names = ["templates/page.css", *(["viewer/viewer.css"] if viewer else [])]
    return "\n".join(_text(name) for name in names)


def scripts(*, viewer: bool) -> list[str]:
    """Return the scripts of a page, with the licence of NiiVue before its code."""
    if not viewer:
        return []
    licence = f"/*! {NIIVUE}, https://github.com/niivue/niivue\n\n{_text('viewer/niivue.LICENSE.txt')}*/\n"
    return [licence + _text("viewer/niivue.umd.js"), _text("viewer/viewer.js")]


def policy(codes: list[str]) -> str:
    """Return a Content-Security-Policy: nothing is loaded, and only these scripts run (W3C CSP 3)."""
    digests = [base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in codes]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:;"
        " base-uri 'none'; form-action 'none'"
    )


@cache
def _text(name: str) -> str:
    return files("pasta_model.report").joinpath(name).read_text(encoding="utf-8")
