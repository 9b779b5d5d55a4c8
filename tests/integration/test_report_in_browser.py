# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser: opens from the disk, loads nothing, draws, and answers to mouse and keys.

Pictures of it are kept where PASTA_SCREENSHOTS names a folder.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread
from scipy.ndimage import gaussian_filter

from pasta_model.data.grid import Grid, template
from pasta_model.data.volume import Volume
from pasta_model.report.cases import Case
from pasta_model.report.evaluation_page import Evaluation, evaluation_page
from pasta_model.report.html import write_page
from pasta_model.report.viewer import PAGE_LIMIT

CHROMIUM = os.environ.get("PASTA_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
PATIENCE = 120_000  # ms: a software renderer on a busy machine
LAYERS = ["mri", "real", "synthetic", "difference", "z_real", "z_synthetic", "uncertainty"]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium here: install chromium, or name it in PASTA_CHROMIUM"
    ),
]


def _case(number: int, grid: Grid) -> Case:
    """Return a head that is no head, but as large, as smooth and as bright as one."""
    rng = np.random.default_rng(number)
    x, y, z = np.moveaxis(grid.coordinates(), -1, 0)
    radius = np.sqrt((x / 66) ** 2 + ((y + 18) / 84) ** 2 + ((z - 8) / 62) ** 2)
    inside, rim = radius < 1, np.exp(-(((radius - 0.88) / 0.12) ** 2))

    def smooth(fwhm: float) -> np.ndarray:
        noise = gaussian_filter(rng.standard_normal(grid.shape), fwhm / grid.spacing / 2.355)
        return noise / noise.std()

    def volume(data: np.ndarray, unit: str) -> Volume:
        return Volume((data * inside).astype(np.float32), grid.affine, unit)

    real = 0.9 + 0.6 * rim + 0.05 * smooth(6)
    synthetic = 0.92 + 0.55 * rim + 0.06 * smooth(12)
    return Case(
        f"sub-{number:03d}", "AB"[number % 2], ("CN", "MCI", "Dementia")[number % 3], f"rule {number}",
        {
            "mri": volume(np.clip(700 - 250 * rim + 40 * smooth(4), 1, None), "arbitrary"),
            "real": volume(real, "SUVR"), "synthetic": volume(synthetic, "SUVR"),
            "z_real": volume(1.7 * smooth(14), "z"), "z_synthetic": volume(1.7 * smooth(18), "z"),
            "uncertainty": volume(0.08 + 0.02 * smooth(10), "SUVR"),
        },
    )  # fmt: skip


@dataclass
class Seen:
    """What a page did that it must not do."""

    requests: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)


@dataclass
class Opened:
    """A page in the browser."""

    page: object
    seen: Seen
    file: Path

    def stage(self) -> str:
        """Return a digest of what the planes show."""
        self.page.evaluate("document.activeElement.blur()")  # its ring is no part of the planes
        self.page.wait_for_timeout(250)
        return hashlib.sha256(self.page.locator("#viewer-stage").screenshot()).hexdigest()

    def value(self, key: str) -> str:
        return self.page.inner_text(f'[data-value="{key}"] dd')

    def press(self, key: str) -> None:
        self.page.locator("#viewer-canvas").press(key)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve cases at 3 mm, as a run writes them."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    cases = [_case(number, template(3.0).head) for number in range(12)]
    write_page(path, evaluation_page(Evaluation("Twelve", "federated", [], [], cases=cases, people=False)))
    return path


def _open(browser: object, path: Path, *, ready: str = "yes", **options: object) -> Opened:
    seen = Seen()
    page = browser.new_context(viewport={"width": 1200, "height": 1000}, **options).new_page()

    def refuse(route: object) -> None:
        seen.requests.append(route.request.url)
        route.abort()

    page.route(lambda url: not url.startswith(("data:", "blob:", f"file://{path}")), refuse)
    page.on("console", lambda said: seen.words.append(f"{said.type}: {said.text}"))
    page.on("pageerror", lambda error: seen.words.append(f"error: {error}"))
    page.goto(f"file://{path}", timeout=PATIENCE)
    page.wait_for_selector(f'#viewer[data-ready="{ready}"]', state="attached", timeout=PATIENCE)
    return Opened(page, seen, path)


@pytest.fixture(scope="module")
def opened(browser: object, report: Path) -> Opened:
    return _open(browser, report)


@pytest.fixture(autouse=True)
def nothing_forbidden(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test: no request left the file, and the page said nothing on the console."""
    yield
    if "opened" in request.fixturenames:
        seen = request.getfixturevalue("opened").seen
        assert seen.requests == []
        assert seen.words == []


def _keep(page: object, name: str, **options: object) -> None:
    folder = os.environ.get("PASTA_SCREENSHOTS")
    path = Path(folder or tempfile.gettempdir()) / name
    if folder:
        page.screenshot(path=path, full_page=True, **options)


def test_is_one_small_file_and_draws(opened: Opened) -> None:
    assert opened.file.stat().st_size < PAGE_LIMIT
    assert opened.page.is_hidden("#viewer-why")
    _keep(opened.page, "light.png")
    pixels = imread(BytesIO(opened.page.locator("#viewer-canvas").screenshot()), format="png")[..., :3]
    for third in np.array_split(pixels, 3, axis=1):  # axial, coronal, sagittal
        assert third.reshape(-1, 3).std(axis=0).max() > 0.1
        assert len(np.unique(third.reshape(-1, 3), axis=0)) > 500


@pytest.mark.parametrize("key", LAYERS)
def test_every_layer_shows_something_else(opened: Opened, key: str) -> None:
    other = LAYERS[LAYERS.index(key) - 1]
    opened.page.click(f'button[data-layer="{other}"]')
    before = opened.stage()
    opened.page.click(f'button[data-layer="{key}"]')
    assert opened.stage() != before
    assert opened.page.get_attribute("#viewer", "data-layer") == key
    assert opened.page.get_attribute(f'button[data-layer="{key}"]', "aria-pressed") == "true"
    assert opened.page.locator('button[data-layer][aria-pressed="true"]').count() == 1


def test_keys_switch_layers_move_the_crosshair_and_choose_cases(opened: Opened) -> None:
    opened.press("2")
    assert opened.page.get_attribute("#viewer", "data-layer") == "real"
    opened.press("Space")
    assert opened.page.get_attribute("#viewer", "data-layer") == "synthetic"
    opened.press("h")
    home, before = opened.page.inner_text("#viewer-place"), opened.stage()
    opened.press("PageUp")
    opened.press("ArrowLeft")
    assert opened.page.inner_text("#viewer-place") != home
    assert opened.stage() != before
    opened.press("h")
    assert opened.page.inner_text("#viewer-place") == home
    opened.press("n")
    opened.page.wait_for_selector('#viewer[data-case="1"]', timeout=PATIENCE)
    opened.press("p")
    opened.page.wait_for_selector('#viewer[data-case="0"]', timeout=PATIENCE)


def test_the_values_at_the_crosshair_are_those_of_the_volumes(opened: Opened) -> None:
    opened.press("h")
    assert opened.page.inner_text("#viewer-place") == "+1, \u221246, +31"
    case, grid = _case(0, template(3.0).head), template(3.0).head
    index = tuple(round((mm - o) / grid.spacing) for mm, o in zip((1, -46, 31), grid.origin, strict=True))
    for key, digits in (("real", 2), ("synthetic", 2), ("uncertainty", 3)):
        shown, unit = opened.value(key).split()
        assert unit == "SUVR"
        assert float(shown) == pytest.approx(case.volumes[key].data[index], abs=1.01 * 10**-digits)
    z = opened.value("z_real").replace("\u2212", "-").removesuffix(" SD")
    assert float(z) == pytest.approx(case.volumes["z_real"].data[index], abs=0.11)


def test_choosing_a_case_shows_it_with_its_rule(opened: Opened) -> None:
    before = opened.stage()
    opened.page.select_option("#viewer-case", "5")
    opened.page.wait_for_selector('#viewer[data-case="5"]', timeout=PATIENCE)
    assert opened.page.inner_text("#viewer-rule") == "rule 5"
    assert opened.stage() != before
    opened.page.select_option("#viewer-case", "0")
    opened.page.wait_for_selector('#viewer[data-case="0"]', timeout=PATIENCE)
    assert opened.stage() == before


def test_opacity_lets_the_mri_through(opened: Opened) -> None:
    opened.press("2")
    before = opened.stage()
    opened.page.locator("#viewer-opacity").fill("40")
    assert opened.page.inner_text("#viewer-percent") == "40 %"
    assert opened.stage() != before
    opened.page.locator("#viewer-opacity").fill("100")
    assert opened.stage() == before
    opened.press("1")
    assert opened.page.is_disabled("#viewer-opacity")


def test_a_click_moves_the_crosshair_and_a_drag_changes_no_limit(opened: Opened) -> None:
    opened.press("2")
    opened.press("h")
    opened.page.locator("#viewer-canvas").click(position={"x": 120, "y": 120})
    assert opened.page.inner_text("#viewer-place") != "+1, \u221246, +31"
    opened.press("h")
    before = opened.stage()
    box = opened.page.locator("#viewer-canvas").bounding_box()
    opened.page.mouse.move(box["x"] + 100, box["y"] + 100)
    opened.page.mouse.down(button="right")
    opened.page.mouse.move(box["x"] + 180, box["y"] + 160)
    opened.page.mouse.up(button="right")
    opened.page.locator("#viewer-canvas").dblclick(position={"x": 120, "y": 120})
    opened.press("h")
    assert opened.stage() == before


def test_three_dimensions_come_and_go(opened: Opened) -> None:
    opened.press("h")
    before = opened.stage()
    opened.page.click("[data-act=render]")
    assert opened.page.get_attribute("[data-act=render]", "aria-pressed") == "true"
    assert opened.stage() != before
    opened.page.click("[data-act=render]")
    assert opened.stage() == before


def test_everything_can_be_reached_by_the_keyboard_and_has_a_name(opened: Opened) -> None:
    nameless = opened.page.evaluate("""() => [...document.querySelectorAll(
      "#viewer button, #viewer select, #viewer input, #viewer canvas")]
      .filter((part) => !(part.textContent.trim() || part.getAttribute("aria-label") || part.labels?.length))
      .map((part) => part.outerHTML)""")
    assert nameless == []
    opened.page.focus("#viewer-case")
    reached = set()
    for _ in range(20):
        opened.page.keyboard.press("Tab")
        reached.add(opened.page.evaluate("document.activeElement.dataset.layer || document.activeElement.id"))
    assert {*LAYERS, "viewer-canvas", "viewer-opacity"} <= reached


def test_a_narrow_window_in_the_dark_needs_no_sideways_scrolling(browser: object, report: Path) -> None:
    opened = _open(browser, report, color_scheme="dark")
    opened.page.set_viewport_size({"width": 420, "height": 900})
    opened.stage()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 420
    _keep(opened.page, "narrow-dark.png")
    assert opened.seen == Seen()


def test_without_webgl_it_says_why_and_keeps_the_pictures(browser: object, report: Path) -> None:
    started = browser.browser_type.launch(
        executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-3d-apis"]
    )
    opened = _open(started, report, ready="no")
    assert "no WebGL 2" in opened.page.inner_text("#viewer-why")
    assert opened.page.is_hidden("#viewer")
    assert opened.page.locator("#look details img").count() == 9
    assert opened.seen == Seen()
    started.close()


def test_without_scripts_it_says_so(browser: object, report: Path) -> None:
    page = browser.new_context(java_script_enabled=False).new_page()
    page.goto(f"file://{report}", timeout=PATIENCE)
    assert "needs JavaScript" in page.inner_text("#viewer-why")
    assert page.locator("#look details img").count() == 9


def test_a_script_that_was_slipped_in_does_not_run(browser: object, report: Path, tmp_path: Path) -> None:
    text = report.read_text(encoding="utf-8")
    evil = tmp_path / "evil.html"
    evil.write_text(
        text.replace(
            "<main>", '<main><script>document.title = "owned"</script><img src="http://127.0.0.1:9/x">', 1
        ),
        encoding="utf-8",
    )
    opened = _open(browser, evil)
    assert opened.page.title() == "Twelve"
    assert opened.seen.requests == []
    assert any("Content Security Policy" in word for word in opened.seen.words)


def test_the_finest_grid_draws_too(browser: object, tmp_path: Path) -> None:
    path = tmp_path / "fine.html"
    cases = [_case(3, template(1.5).head)]
    size = write_page(
        path, evaluation_page(Evaluation("Fine", "federated", [], [], cases=cases, people=False))
    )
    assert size < PAGE_LIMIT
    opened = _open(browser, path)
    first = opened.stage()
    opened.press("4")
    assert opened.stage() != first
    _keep(opened.page, "fine.png")
    assert opened.seen == Seen()


def test_prints_pictures_in_place_of_the_viewer(opened: Opened, tmp_path: Path) -> None:
    opened.page.emulate_media(media="print")
    assert opened.page.is_hidden("#viewer")
    target = Path(os.environ.get("PASTA_SCREENSHOTS", str(tmp_path))) / "print.pdf"
    opened.page.pdf(path=target, format="A4", print_background=True)
    assert target.stat().st_size > 50_000
    opened.page.emulate_media(media="screen")
