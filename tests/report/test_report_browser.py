"""The page in a real browser: no request, no complaint, no sideways scrolling, in both schemes and on paper."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_audit import Kind, write_audit

from deepssim.report import write_report

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    none = Kind(level="none_found", has_holdout=False, has_groups=False, n_skipped=0)
    return {
        "full": write_report(hostile, out=folder / "full.html"),
        "shareable": write_report(hostile, with_images=False, pseudonyms=True, out=folder / "shareable.html"),
        "verified": write_report(
            write_audit(folder / "verified", Kind(is_verified=True)), out=folder / "verified.html"
        ),
        "none": write_report(write_audit(folder / "none", none), out=folder / "none.html"),
    }


class Visit:
    """An open page with everything that it asked for or complained about."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.page = browser.new_page(**options)
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.url = path.as_uri()
        self.page.goto(self.url)
        self.page.wait_for_load_state("networkidle")

    def close(self) -> None:
        outside = [url for url in self.requests if url != self.url and not url.startswith("data:image/png")]
        self.page.close()
        assert outside == []
        assert self.complaints == []


@pytest.mark.parametrize("name", ["full", "verified", "shareable", "none"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_the_page_fits_loads_nothing_and_is_styled(
    browser: Any, pages: dict[str, Path], name: str, scheme: str, width: int
):
    visit = Visit(browser, pages[name], viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = visit.page
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background[4:-1].split(","))
    assert (brightness < 150) if scheme == "dark" else (brightness > 600)
    assert page.locator("script, iframe, link").count() == 0
    assert page.locator("#scores svg:visible").count() == 1
    visit.close()


# WCAG: relative luminance of text against the first ancestor that is not transparent.
CONTRAST = """() => {
  const luminance = rgb => rgb.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const rgba = text => text.match(/[\\d.]+/g).map(Number);
  const low = [];
  const texts = 'p, li, td, th, dt, dd, h1, h2, h3, figcaption, code, a, summary, .badge, .esc';
  for (const one of document.querySelectorAll(texts)) {
    if (!one.textContent.trim() || !one.getClientRects().length) continue;
    let back = one, colour;
    do { colour = rgba(getComputedStyle(back).backgroundColor); back = back.parentElement; }
    while (colour[3] === 0 && back);
    const [a, b] = [rgba(getComputedStyle(one).color), colour].map(c => luminance(c.slice(0, 3))).sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < 4.5) low.push([one.className || one.tagName, one.textContent.slice(0, 40), ratio]);
  }
  return low;
}"""


@pytest.mark.parametrize("name", ["full", "verified", "none"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(browser: Any, pages: dict[str, Path], name: str, scheme: str):
    visit = Visit(browser, pages[name], viewport={"width": 1280, "height": 800}, color_scheme=scheme)
    assert visit.page.evaluate(CONTRAST) == []
    visit.close()


def test_hostile_names_are_shown_and_do_nothing(browser: Any, pages: dict[str, Path]):
    visit = Visit(browser, pages["full"])
    page = visit.page
    assert page.get_by_text("<script>alert(1)</script>", exact=True).count() > 0
    assert page.locator("img[src='x']").count() == 0
    assert page.locator("img").count() == 18
    broken = page.evaluate("[...document.images].filter(one => !one.complete || one.naturalWidth === 0).length")
    assert broken == 0
    visit.close()


# Where the pictures of a pair lie in its card, whatever the page has been scrolled to.
PLACES = """card => Object.fromEntries(['aligned', 'synthetic', 'agreement', 'difference', 'real'].map(name => {
  const [image, whole] = [card.querySelector(`.is-${name} img`), card].map(one => one.getBoundingClientRect());
  return [name, [image.x - whole.x, image.y - whole.y, image.width, image.height].map(Math.round)];
}))"""


@pytest.mark.parametrize("width", [390, 820, 1280])
@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
def test_the_laid_on_picture_can_be_blinked_over_the_synthetic_one(
    browser: Any, pages: dict[str, Path], width: int, motion: str
):
    visit = Visit(browser, pages["verified"], viewport={"width": width, "height": 900}, reduced_motion=motion)
    card = visit.page.locator("li.pair").nth(2)
    box = card.get_by_role("checkbox", name="Blink real over synthetic")
    apart = card.evaluate(PLACES)
    assert apart["aligned"][1:] == apart["synthetic"][1:]
    assert apart["aligned"][0] + apart["aligned"][2] <= apart["synthetic"][0]
    box.focus()
    visit.page.keyboard.press("Space")
    assert box.is_checked()
    assert card.evaluate(PLACES) == apart | {"aligned": apart["synthetic"]}  # it alone moves
    moving = card.locator(".is-aligned").evaluate("one => getComputedStyle(one).animationName")
    assert moving == ("none" if motion == "reduce" else "blink")
    visit.page.emulate_media(media="print")
    assert card.evaluate(PLACES)["aligned"] != card.evaluate(PLACES)["synthetic"]  # paper does not blink
    visit.close()


def test_every_picture_of_a_verified_pair_is_shown(browser: Any, pages: dict[str, Path]):
    visit = Visit(browser, pages["verified"])
    assert visit.page.locator("img").count() == 30
    broken = visit.page.evaluate("[...document.images].filter(one => !one.complete || one.naturalWidth === 0).length")
    assert broken == 0
    assert visit.page.get_by_role("region", name="S1 of the best candidates").count() == 1
    assert visit.page.get_by_role("img", name="S2 0.8000, exact from 0.45").count() > 0
    visit.close()


def test_the_policy_stops_what_gets_in(browser: Any, pages: dict[str, Path], tmp_path: Path):
    evil = tmp_path / "evil.html"
    source = pages["full"].read_text(encoding="utf-8")
    evil.write_text(source.replace("</main>", "<script>document.title = 'owned'</script></main>"), encoding="utf-8")
    page = browser.new_page()
    page.goto(evil.as_uri())
    assert page.title() != "owned"
    page.close()


def test_the_page_can_be_used_by_keyboard_and_read_aloud(browser: Any, pages: dict[str, Path]):
    visit = Visit(browser, pages["full"])
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.get_by_role("heading", level=1).count() == 1
    for name in ("Against the control", "Nearest scores", "The worst pairs", "Provenance"):
        assert page.get_by_role("region", name=name).count() == 1
    assert page.get_by_role("img", name="Histogram of the nearest score").count() == 1
    assert page.get_by_role("table", name="Patients with the most copies").count() == 1
    visit.close()


def test_a_phone_still_sees_a_table(browser: Any, pages: dict[str, Path]):
    visit = Visit(browser, pages["full"], viewport={"width": 390, "height": 800})
    table = visit.page.get_by_role("table", name="Patients with the most copies")
    assert table.get_by_role("row").count() == 9
    visit.close()


def test_printing_gives_a_pdf_with_the_folded_tables(browser: Any, pages: dict[str, Path]):
    visit = Visit(browser, pages["full"], color_scheme="dark")
    raw = visit.page.pdf(prefer_css_page_size=True)
    assert raw.startswith(b"%PDF")
    visit.page.emulate_media(media="print")
    assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    cell = visit.page.locator("#scores details td").first
    assert cell.evaluate("one => one.checkVisibility({contentVisibilityAuto: true})")
    visit.close()
