# SPDX-License-Identifier: Apache-2.0
"""What a bundle contains, and what is no bundle."""

import hashlib
import io
import stat
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from flwr.cli.build import build_fab_from_disk

from client import bundles
from client.bundles import MANIFEST, PROJECT, Bundle, Standing, digest_of, read_bundle
from pasta_model.config import Settings
from pasta_model.errors import BundleError
from tests.support.guarded import build, project_of, zipped

ROOT = Path(__file__).parents[3]
PLAIN = {PROJECT: project_of(Settings()), "client/a.py": b"1\n"}


def manifest(files: dict[str, bytes]) -> bytes:
    lines = (f"{n},{hashlib.sha256(c).hexdigest()},{8 * len(c)}" for n, c in files.items())
    return "\n".join(lines).encode()


def bundle(files: dict[str, bytes], **attributes: int) -> bytes:
    """A bundle with a manifest that fits."""
    return zipped({**files, MANIFEST: manifest(files)}, **attributes)


def refused(content: bytes) -> str:
    with pytest.raises(BundleError) as error:
        read_bundle(content)
    return str(error.value)


@pytest.fixture(scope="module")
def content() -> bytes:
    return build_fab_from_disk(ROOT)


@pytest.fixture(scope="module")
def own(content: bytes) -> Bundle:
    return read_bundle(content)


class TestOurOwn:
    def test_every_file_is_the_same_as_installed(self, own: Bundle) -> None:
        assert {file.path: file.standing for file in own.files if file.standing is not Standing.SAME} == {}
        assert "client/guard/gate.py" in {file.path for file in own.files}

    def test_who_made_it_and_what_it_starts(self, own: Bundle) -> None:
        assert own.title == "pasta/pasta-federated 0.1.0"
        assert own.client_app == bundles.OWN_APP

    def test_its_settings_are_the_usual_ones(self, own: Bundle) -> None:
        assert own.config == Settings().flat()

    def test_its_hash_is_the_one_that_flower_names(self, own: Bundle, content: bytes) -> None:
        assert own.hash == hashlib.sha256(content).hexdigest()


def test_what_differs_is_told() -> None:
    changed = (ROOT / "client/wire.py").read_bytes().replace(b"REFUSED = 100", b"REFUSED = 0")
    found = read_bundle(build(Settings(), wire=changed, extra=b"import os\n"))
    standing = {file.path: file.standing for file in found.files}
    assert standing["client/wire.py"] is Standing.CHANGED
    assert standing["client/extra.py"] is Standing.NEW
    (wire,) = (file for file in found.files if file.path == "client/wire.py")
    lines = [line for line in wire.diff() if line[0] in "+-" and line[1] not in "+-"]
    assert [line.split("  #")[0] for line in lines] == ["-REFUSED = 100", "+REFUSED = 0"]
    (extra,) = (file for file in found.files if file.path == "client/extra.py")
    assert extra.diff()[-1] == "+import os"
    assert extra.digest == hashlib.sha256(b"import os\n").hexdigest()


def test_what_would_run_at_the_site() -> None:
    files = {**PLAIN, "server/b.py": b"", "torch.py": b"", "numpy/__init__.py": b"", "client/notes.md": b""}
    runs = {file.path for file in read_bundle(bundle(files)).files if file.runs_here}
    assert runs == {"client/a.py", "torch.py", "numpy/__init__.py"}


def test_what_a_terminal_would_obey_is_spelt_out() -> None:
    hidden = "x = 1  # \x1b[2K\u202e }safe{ \u2066\n".encode()
    found = read_bundle(bundle({**PLAIN, "client/b.py": hidden}))
    (file,) = (file for file in found.files if file.path == "client/b.py")
    assert file.diff()[-1] == "+x = 1  # <U+001B>[2K<U+202E> }safe{ <U+2066>"


class TestWhatIsNoBundle:
    @pytest.mark.parametrize(
        "name",
        [
            "/etc/cron.d/x.py",
            "../x.py",
            "client/../../x.py",
            "client\\x.py",
            "./x.py",
            "client//x.py",
            "C:x.py",
            "client/",
            "client/\x1b[2Kx.py",
            "client/\u202ex.py",
        ],
    )
    def test_a_path_that_is_not_plain(self, name: str) -> None:
        said = refused(bundle({**PLAIN, name: b""}))
        assert "not one that Flower makes" in said
        assert "\x1b" not in said

    @pytest.mark.parametrize("name", ["client/x.so", "client/x.pyc", "x", "client/x.pth", ".info/x.py"])
    def test_a_kind_of_file_that_bundles_do_not_hold(self, name: str) -> None:
        assert "is not of a kind that bundles hold" in refused(bundle({**PLAIN, name: b""}))

    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFDIR, stat.S_IFIFO])
    def test_a_link(self, kind: int) -> None:
        assert "is a link or a device" in refused(bundle(PLAIN, external_attr=(kind | 0o777) << 16))

    def test_a_plain_file_with_a_mode(self) -> None:
        assert len(read_bundle(bundle(PLAIN, external_attr=(stat.S_IFREG | 0o644) << 16)).files) == 2

    @pytest.mark.filterwarnings("ignore:Duplicate name")
    @pytest.mark.parametrize("again", ["client/a.py", "client/A.py"])
    def test_a_file_that_is_there_twice(self, again: str) -> None:
        buffer = io.BytesIO(bundle(PLAIN))
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr(again, b"2")
        assert "is there twice" in refused(buffer.getvalue())

    def test_a_bomb(self, monkeypatch) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("client/a.py", bytes(bundles.MAX_UNPACKED + 1))
        assert len(buffer.getvalue()) < 100_000
        monkeypatch.setattr(bundles, "MAX_UNPACKED", 2**20)
        tracemalloc.start()
        try:
            assert "unpacks to more than" in refused(buffer.getvalue())
            assert tracemalloc.get_traced_memory()[1] < 8 * 2**20, "it was unpacked before it was refused"
        finally:
            tracemalloc.stop()

    def test_a_bomb_of_many_files(self, monkeypatch) -> None:
        monkeypatch.setattr(bundles, "MAX_UNPACKED", len(PLAIN[PROJECT]) + 1)
        assert "unpacks to more than" in refused(bundle(PLAIN))
        monkeypatch.setattr(bundles, "MAX_FILES", 2)
        assert "holds 3 files" in refused(bundle(PLAIN))

    def test_one_that_is_too_large(self) -> None:
        assert "wanted at most 10,485,760" in refused(b"x" * (10 * 2**20 + 1))

    @pytest.mark.parametrize("content", [b"", b"PK", b"no zip"])
    def test_no_zip(self, content: bytes) -> None:
        assert "is damaged" in refused(content)

    def test_one_that_is_cut(self) -> None:
        whole = bundle(PLAIN)
        assert "is damaged" in refused(whole[: len(whole) // 2])

    def test_a_file_whose_bytes_are_not_what_the_zip_says(self) -> None:
        assert "is damaged" in refused(bundle(PLAIN).replace(b"1\n", b"2\n", 1))


class TestManifest:
    def test_none(self) -> None:
        assert "has no manifest" in refused(zipped(PLAIN))

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            ({"client/a.py": b"2\n"}, "client/a.py: is not what the manifest says"),
            ({"client/b.py": b""}, "client/b.py: is not in the manifest"),
        ],
    )
    def test_one_that_does_not_fit(self, change: dict[str, bytes], said: str) -> None:
        assert said in refused(zipped({**PLAIN, **change, MANIFEST: manifest(PLAIN)}))

    @pytest.mark.parametrize("line", ["client/c.py,00,0", "nothing", "client/a.py,,\x1b[2K"])
    def test_a_line_too_many(self, line: str) -> None:
        said = refused(zipped({**PLAIN, MANIFEST: manifest(PLAIN) + f"\n{line}".encode()}))
        assert "wanted a file of the bundle" in said
        assert "\x1b" not in said

    @pytest.mark.parametrize(
        "project", [b"", b"x = ", b"[project]\nname = 'a'\nversion = '1'\n", b"project = 3\n", b"\xff"]
    )
    def test_a_project_that_cannot_be_read(self, project: bytes) -> None:
        assert PROJECT in refused(bundle({**PLAIN, PROJECT: project}))


def test_the_digest_is_of_all_bytes() -> None:
    content = bundle(PLAIN)
    assert digest_of(content) != digest_of(content + b"\0")
