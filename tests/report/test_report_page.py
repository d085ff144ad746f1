"""What the page says, and what it must never say."""

from __future__ import annotations

import base64
import hashlib
import html as html_module
import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fake_audit import DIGEST, HOSTILE, Kind, write_audit

from deepssim.report import ReportError, write_report
from deepssim.report.data import Rate
from deepssim.report.pseudonyms import Pseudonyms, names_in
from deepssim.report.view import rate_text

VOID = {"meta", "img", "br", "link"}
SHAPES = {"path", "rect", "circle", "line", "stop"}


class Page(HTMLParser):
    """Collects tags and attributes, and checks that elements close in order."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack, tag
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.stack and self.stack[-1] not in ("style", "title"):
            self.words.append(data)

    @property
    def ids(self) -> list[str]:
        return [str(attributes["id"]) for _, attributes in self.tags if "id" in attributes]


def source_of(folder: Path, out: Path, **options: Any) -> str:
    return write_report(folder, out=out, **options).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def source(hostile: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return source_of(hostile, tmp_path_factory.mktemp("page") / "r.html")


def test_the_page_is_well_formed(source: str):
    page = Page(source)
    assert page.stack == []
    assert len(page.ids) == len(set(page.ids))
    links = [str(a["href"])[1:] for tag, a in page.tags if tag == "a"]
    assert set(links) <= set(page.ids)


def test_nothing_is_loaded_run_or_styled_inline(source: str):
    page = Page(source)
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "form", "base"}
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("src", "href", "xlink:href", "srcset"):
            assert str(attributes.get(name, "#")).startswith(("#", "data:image/png;base64,"))
    assert "http:" not in source
    assert "https:" not in source


def test_the_policy_fits_the_style(source: str):
    page = Page(source)
    policy = next(str(a["content"]) for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    css = re.search("<style>(.*?)</style>", source, re.DOTALL)
    assert css is not None
    digest = base64.b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert "url(" not in css[1]
    assert "@import" not in css[1]


def test_hostile_names_are_text(source: str):
    page = Page(source)
    shown = "".join(page.words)
    assert "<script>alert(1)</script>" in shown
    assert '"><img src=x onerror="alert(2)">' in shown
    assert "'{{ 7*7 }}'" in shown
    assert "scanU+202Egnp.exe" in shown
    for char in "\u202e\u200b\x00":
        assert char not in source
        assert f"&#{ord(char)};" not in source


def test_a_long_name_is_folded_with_its_full_text_at_hand(source: str):
    page = "".join(Page(source).words)
    assert HOSTILE[3] in page
    assert "\u2026" in page


def test_tables_name_every_cell_for_the_phone(source: str):
    page = Page(source)
    cells = [attributes for tag, attributes in page.tags if tag == "td"]
    assert cells
    assert all(attributes.get("data-label") and attributes.get("role") == "cell" for attributes in cells)


def test_every_picture_has_a_text(source: str):
    pictures = [attributes for tag, attributes in Page(source).tags if tag == "img"]
    assert len(pictures) == 18
    assert all(
        str(attributes["alt"]).startswith(("Real image", "Synthetic image", "Difference")) for attributes in pictures
    )


def test_the_order_of_the_page(source: str):
    parts = ["id=\"verdict\"", "id=\"control\"", "id=\"scores\"", "id=\"pairs\"", "id=\"patients\"",
             "id=\"skipped\"", "id=\"limits\"", "id=\"provenance\"", "id=\"words\""]  # fmt: skip
    places = [source.index(part) for part in parts]
    assert places == sorted(places)
    assert source.index("This report shows images and identifiers of patients.") < places[0]


def test_no_images_means_no_picture_data(hostile: Path, tmp_path: Path):
    html = source_of(hostile, tmp_path / "r.html", with_images=False)
    assert "data:image" not in html
    assert "<img" not in html.replace("&lt;img", "")
    assert "No picture data is in this file." in html


def identifiers(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.glob("*.parquet"):
        table = pq.read_table(path)
        for name in table.column_names:
            if name.endswith(("id", "path", "group")):
                found |= set(table[name].to_pylist()) - {None}
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    for one in run["inputs"].values():
        found |= {one["source"], one["digest"]} if one else set()
    return found | {str(run["options"]["out"])}


@pytest.mark.parametrize("with_images", [True, False])
@pytest.mark.parametrize("is_hostile", [True, False])
def test_no_name_is_left_under_pseudonyms(tmp_path: Path, with_images: bool, is_hostile: bool):
    folder = write_audit(tmp_path / "audit", Kind(is_hostile=is_hostile, n_skipped=30))
    html = source_of(folder, tmp_path / "r.html", with_images=with_images, pseudonyms=True)
    names = identifiers(folder)
    assert len(names) > 500
    text = html_module.unescape(html)
    stripped = re.sub(r'<span class="esc">.*?</span>', "", text)
    for name in names:
        assert name not in text
        assert name not in stripped
        assert html_module.escape(name) not in html
    for fragment in (
        "patient-0",
        "secret",
        "hospital",
        "sample-0",
        "T1w-0",
        "alert(",
        DIGEST[4:],
        "SECRET",
        "bad-file",
    ):
        assert fragment not in text.replace("1.1 T1w", ""), fragment
    assert re.search(r"R-[0-9a-f]{10}", text)
    assert re.search(r"S-[0-9a-f]{10}", text)
    assert re.search(r"P-[0-9a-f]{10}", text)
    assert ("data:image/png" in html) == with_images


def test_pseudonyms_are_stable_in_a_folder_and_differ_between_folders(tmp_path: Path):
    pages = []
    for name in ("a", "b"):
        folder = write_audit(tmp_path / name, Kind(is_hostile=False, n_pairs=2, n_skipped=3))
        first = source_of(folder, tmp_path / f"{name}1.html", pseudonyms=True)
        assert source_of(folder, tmp_path / f"{name}2.html", pseudonyms=True) == first
        key = folder / "pseudonyms.key"
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert len(key.read_bytes()) == 32
        assert key.read_bytes().hex() not in first
        pages.append(set(re.findall(r"P-[0-9a-f]{10}", first)))
    assert pages[0]
    assert not pages[0] & pages[1]


def test_one_patient_has_one_pseudonym_and_the_kinds_differ():
    names = Pseudonyms(bytes(range(32)))
    assert names.of("patient", "x") == names.of("patient", "x")
    assert len({names.of(kind, "x")[2:] for kind in ("patient", "real", "synthetic", "holdout")}) == 4
    assert names.of("real", "\ud800") != names.of("real", "\ud801")


def test_a_key_that_is_no_key_is_refused(audit: Path):
    (audit / "pseudonyms.key").write_bytes(b"short")
    with pytest.raises(ReportError, match=r"pseudonyms\.key"):
        write_report(audit, pseudonyms=True)


@pytest.mark.parametrize(
    "path", ["/home/x/y.png", "~/x", "../up/z", r"C:\Users\x", r"\\server\share", "data/sub-01/a.nii.gz", "rel/x.PNG"]
)
def test_paths_are_taken_out_of_sentences(path: str):
    assert Pseudonyms(bytes(32)).free(f"read '{path}' twice") == "read '[path withheld]' twice"


def test_ordinary_sentences_stay_as_they_are():
    names = Pseudonyms(bytes(32), names_in("a12 of 400", [("real", "12"), ("real", "400"), ("real", "of")]))
    for sentence in ("12 of 400 images (3.0 %).", "near and/or exact; 1/2.5 of it, see [1]", "e.g. 5 / 6"):
        assert names.free(sentence) == sentence


def rate(count: int, total: int, interval: tuple[float, float] | None) -> Rate:
    return Rate(count, None, total, count / total if total else None, interval, "patient", 0.95)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (rate(0, 500, (0.0, 0.0059)), "at most 0.6~% with 95~% confidence"),
        (rate(500, 500, (0.9926, 1.0)), "at least 99.2~% with 95~% confidence"),
        (rate(12, 500, (0.0101, 0.0399)), "2.4~% (95~% interval 1.0\u00a0to\u00a04.0~%, by patient)"),
        (rate(1, 5000, (0.00001, 0.0011)), "0.020~% (95~% interval 0.001\u00a0to\u00a00.110~%, by patient)"),
        (rate(3, 10, None), "30.0~%, no interval known"),
        (rate(0, 0, None), "no rate: there are none"),
    ],
)
def test_rates_in_words(value: Rate, shown: str):
    assert rate_text(value) == shown.replace("~", "\u202f")
