# SPDX-License-Identifier: Apache-2.0
"""Scripts are what they say; the policy names them, and nothing else may run."""

import base64
import hashlib
import json
import re
from importlib.resources import files

from pasta_model.report.embedding import NIIVUE, NIIVUE_SHA256, description, policy, scripts, style
from pasta_model.report.page import ShownCase, ShownLayer, Viewer

FOLDER = files("pasta_model.report").joinpath("viewer")


def test_niivue_is_the_one_that_is_named() -> None:
    raw = FOLDER.joinpath("niivue.umd.js").read_bytes()
    assert hashlib.sha256(raw).hexdigest() == NIIVUE_SHA256
    readme = FOLDER.joinpath("README.md").read_text(encoding="utf-8")
    assert NIIVUE_SHA256 in readme
    assert NIIVUE in readme


def test_no_script_ends_its_own_element() -> None:
    for code in scripts(viewer=True):
        assert not re.search(r"</script|<!--", code, flags=re.IGNORECASE)
        assert "\r" not in code
        assert "\0" not in code


def test_the_licence_stands_before_the_code() -> None:
    assert scripts(viewer=True)[0].index("Copyright (c) 2021, Niivue") < 500


def test_the_policy_names_every_script_by_its_digest() -> None:
    codes = scripts(viewer=True)
    found = policy(codes)
    for code in codes:
        assert base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() in found
    assert found.startswith("default-src 'none'; script-src 'sha256-")
    script = re.search(r"script-src ([^;]*);", found)
    assert script is not None
    assert "unsafe" not in script[1]
    assert not re.search(r"https?:|\*", found)


def test_a_page_without_a_viewer_runs_nothing() -> None:
    assert scripts(viewer=False) == []
    assert "script-src 'none'" in policy([])
    assert ".viewer-stage" not in style(viewer=False)
    assert ".viewer-stage" in style(viewer=True)


def test_words_cannot_leave_their_script() -> None:
    layer = ShownLayer("mri", "</script>", "", 0, ["#000000"], [True], None)
    case = ShownCase("x", "CN", "<!-- \u2028", {"mri": "AAAA"}, (0.0, 1.0))
    text = description(Viewer([case], [layer], first="mri", start=(1.0, 2.0, 3.0)))
    assert "<" not in text
    assert "\u2028" not in text
    read = json.loads(text)
    assert read["layers"][0]["label"] == "</script>"
    assert read["cases"] == [{"rule": "<!-- \u2028", "window": [0.0, 1.0]}]
    assert read["start"] == [1.0, 2.0, 3.0]
    assert "AAAA" not in text
