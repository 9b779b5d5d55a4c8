# SPDX-License-Identifier: Apache-2.0
"""Text files from templates: TOML, Markdown, nginx and shell."""

import json
import re
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def render(template: str, **values: Any) -> str:
    """Return a template of this package with its values; a value that is missing is an error."""
    environment = Environment(
        loader=PackageLoader("server.provision"),
        autoescape=False,  # noqa: S701 - none of them is HTML
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"toml": toml_text, "key": toml_key, "day": day}
    return environment.get_template(template).render(**values)


def toml_text(text: str) -> str:
    """Return a string as TOML writes it: JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False)


def toml_key(name: str) -> str:
    """Return a key as TOML writes it, in quotes only where it needs them."""
    return name if _BARE.fullmatch(name) else toml_text(name)


def day(moment: datetime) -> str:
    """Return the date of a moment, as 2027-11-25."""
    return moment.strftime("%Y-%m-%d")
