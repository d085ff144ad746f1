"""The report of an audit whose pairs were laid onto each other: what it says, shows and refuses."""

from __future__ import annotations

import base64
import html as html_module
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_audit import Kind, write_audit
from PIL import Image
from test_report_files import cut, edit
from test_report_page import identifiers

from deepssim.audit import AuditOptions, audit
from deepssim.images import ImageOptions
from deepssim.matching import MatchOptions
from deepssim.perturb import View, apply_view
from deepssim.phantom import make_cohort
from deepssim.report import ReportError, gallery, images, write_report
from deepssim.report.pseudonyms import WITHHELD, PlainNames, Pseudonyms

KIND = Kind(n_pairs=4, n_skipped=5, is_hostile=False, is_verified=True)


@pytest.fixture
def verified(tmp_path: Path) -> Path:
    """Return a small verified audit with plain names, to be changed at will."""
    return write_audit(tmp_path / "audit", KIND)


def words_of(html: str) -> str:
    return re.sub(r"\s+", " ", html_module.unescape(re.sub(r"<[^>]*>", " ", html.split("</style>")[1])))


def page_of(folder: Path, **options: Any) -> str:
    return write_report(folder, out=folder / "page.html", **options).read_text(encoding="utf-8")


def test_thresholds_and_labels_are_spoken_of_as_s1_and_s2(verified: Path):
    words = words_of(page_of(verified))
    assert "A pair is near where S1 ≥ 0.75, and exact where it is near and S2 ≥ 0.45." in words
    assert "Recognisably the same anatomy with local deviations: S1 ≥ 0.75, and not yet exact." in words
    assert "only blur, noise or brightness differ: near, and S2 ≥ 0.45." in words
    assert "near or exact: S1 ≥ 0.75" in words
    assert "decided by S2 ≥ 0.45, which has no place on this axis" in words
    assert "the 4 nearest real images by the screening score" in words
    assert "screened by the metric pixel, verified in image space" in words
    assert "Best S1" in words
    assert "come without a measured rate of false alarms" in words
    for other in ("Best score", "a score ≥", "score of the nearest image", "without registration"):
        assert other not in words


def test_the_page_of_scores_says_nothing_of_verification(audit_of_scores: Path):
    words = words_of(page_of(audit_of_scores))
    for word in ("S1", "S2", "verified", "Overlap", "Agreement", "Transform"):
        assert word not in words
    assert "a score ≥ 0.97, and not yet exact" in words
    assert "differs everywhere" in words


@pytest.fixture
def audit_of_scores(tmp_path: Path) -> Path:
    return write_audit(tmp_path / "scores", Kind(n_pairs=2, n_skipped=5, is_hostile=False))


def test_an_audit_of_before_reads_as_one_of_scores(audit_of_scores: Path):
    before = page_of(audit_of_scores)
    edit(audit_of_scores / "summary.json", lambda v: v.update(decided_by="score", verification=None))
    for name in ("leaks", "matches"):
        path = audit_of_scores / f"{name}.parquet"
        table = pq.read_table(path)
        for column in ("s1", "s2"):
            table = table.append_column(column, pa.nulls(table.num_rows, pa.float32()))
        pq.write_table(table, path)
    assert page_of(audit_of_scores) == before


def test_without_a_record_of_candidates_their_number_is_left_open(verified: Path):
    edit(verified / "summary.json", lambda v: (v.pop("verification"), v.pop("decided_by")))
    words = words_of(page_of(verified))
    assert "Of each synthetic image the nearest real images by the screening score" in words
    assert "S1 ≥ 0.75" in words


def test_each_pair_says_why_it_counts(verified: Path):
    html = page_of(verified)
    words = words_of(html)
    assert "The real image as it lies matches the synthetic one as a whole, and no place clearly deviates." in words
    assert "The real image, mirrored, turned 4.2° clockwise and moved 3.0 px, matches" in words
    assert "turned 2.0° counter-clockwise, scaled by 1.020" in words
    assert "Overlap 93 %" in words
    assert "rank 2" in words
    assert html.count("<img") == 20
    assert html.count('class="blink"') == 4


def test_a_pair_that_could_not_be_laid_on_is_not_called_different(verified: Path):
    edit(verified / "evidence" / "pairs.json", lambda v: v[0].update(s1=-1, s2=-1.0, overlap=0, label="unrelated"))
    assert "The two could not be laid onto each other" in words_of(page_of(verified))


def test_pairs_without_pictures_are_listed_with_their_evidence(verified: Path):
    words = words_of(page_of(verified, with_images=False))
    assert "Label S1 S2 Screening score Transform Real image" in words
    assert "mirrored, turned 4.2° clockwise, moved 3.0 px" in words


def test_without_evidence_the_highest_s1_comes_first(tmp_path: Path):
    folder = write_audit(tmp_path / "audit", Kind(is_hostile=False, is_verified=True, has_evidence=False, n_skipped=0))
    path = folder / "leaks.parquet"
    table = pq.read_table(path)
    pq.write_table(table.take(pa.array(range(table.num_rows))[::-1]), path)
    words = words_of(page_of(folder))
    assert 0 < words.index("0.9900") < words.index("0.9831")
    none = Kind(level="none_found", is_hostile=False, is_verified=True, has_evidence=False, has_holdout=False)
    assert "0.5900" in words_of(page_of(write_audit(tmp_path / "none", none)))


def test_verified_pairs_without_pictures_of_it_show_three_pictures(verified: Path):
    def drop(pairs: Any) -> None:
        for pair in pairs:
            del pair["aligned_png"], pair["agreement_png"]

    edit(verified / "evidence" / "pairs.json", drop)
    html = page_of(verified)
    assert html.count("<img") == 12
    assert "S1 0.9900, near from 0.75" in html


@pytest.mark.parametrize("with_images", [True, False])
def test_no_name_is_left_under_pseudonyms(tmp_path: Path, with_images: bool):
    folder = write_audit(tmp_path / "audit", Kind(is_verified=True, n_skipped=30))
    edit(folder / "evidence" / "pairs.json", lambda v: v[2].update(transform="turned 2.0 degrees, J. Doe"))
    html = page_of(folder, with_images=with_images, pseudonyms=True)
    text = html_module.unescape(html)
    for name in identifiers(folder) | {"J. Doe", "SECRET"}:
        assert name not in text
    assert "mirrored, turned 4.2° clockwise, moved 3.0 px" in text
    assert ("data:image/png" in html) == with_images


def pairs(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "evidence" / "pairs.json", lambda v: change(v[1]))


def summary(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "summary.json", change)


def resize(folder: Path) -> None:
    path = folder / "evidence" / "pair-001-agreement.png"
    with Image.open(path) as picture:
        picture.resize((20, 20)).save(path)


def colour(folder: Path) -> None:
    Image.new("RGB", (112, 136)).save(folder / "evidence" / "pair-001-aligned.png")


def link(folder: Path) -> None:
    path = folder / "evidence" / "pair-001-aligned.png"
    path.rename(folder / "elsewhere.png")
    path.symlink_to(folder / "elsewhere.png")


def empty_column(folder: Path) -> None:
    path = folder / "leaks.parquet"
    table = pq.read_table(path)
    place = table.column_names.index("s2")
    pq.write_table(table.set_column(place, "s2", pa.nulls(table.num_rows, pa.float32())), path)
    (folder / "evidence" / "pairs.json").unlink()


def no_column(folder: Path) -> None:
    path = folder / "leaks.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["s1"]), path)
    (folder / "evidence" / "pairs.json").unlink()


DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("pair 1", pairs(lambda v: v.update(aligned_png="../../secret.png"))),
    ("pair 1", pairs(lambda v: v.update(agreement_png="/etc/secret.png"))),
    ("pair 1", pairs(lambda v: v.update(aligned_png="a\\b.png"))),
    ("pair 1: aligned_png", pairs(lambda v: v.update(aligned_png=["x"]))),
    ("aligned_png", pairs(lambda v: v.pop("aligned_png"))),
    ("agreement_png", pairs(lambda v: v.pop("agreement_png"))),
    ("pair 1: s1", pairs(lambda v: v.update(s1="high"))),
    ("pair 1: s1", pairs(lambda v: v.update(s1=10**400))),
    ("pair 1: s1", pairs(lambda v: v.update(s1=1.5))),
    ("pair 1: s2", pairs(lambda v: v.update(s2=None))),
    ("pair 1: s2", pairs(lambda v: v.update(s2=float("nan")))),
    ("pair 1: score", pairs(lambda v: v.update(score=1e308))),
    ("pair 1: overlap", pairs(lambda v: v.update(overlap=-0.1))),
    ("pair 1: overlap", pairs(lambda v: v.pop("overlap"))),
    ("pair 1: screening_rank", pairs(lambda v: v.update(screening_rank=1.5))),
    ("pair 1: screening_rank", pairs(lambda v: v.update(screening_rank=10**30))),
    ("pair 1: transform", pairs(lambda v: v.update(transform=3))),
    ("pair 1: transform", pairs(lambda v: v.update(transform="turned " * 10_000))),
    ("pair-001-aligned.png", lambda f: (f / "evidence" / "pair-001-aligned.png").unlink()),
    ("pair-001-agreement.png", lambda f: cut(f / "evidence" / "pair-001-agreement.png")),
    ("pair-001-agreement.png is 20 x 20", resize),
    ("pair-001-aligned.png", colour),
    ("pair-001-aligned.png is a link", link),
    ("decided_by", summary(lambda v: v.update(decided_by="score"))),
    ("decided_by", summary(lambda v: v.update(decided_by="eye"))),
    ("stage", summary(lambda v: v["thresholds"].update(stage="hunch"))),
    ("candidates", summary(lambda v: v.update(verification={"candidates": 0}))),
    ("candidates", summary(lambda v: v.update(verification={"candidates": "4"}))),
    ("candidates", summary(lambda v: v.update(verification={}))),
    ("verification", summary(lambda v: v.update(verification=4))),
    ("leaks.parquet", empty_column),
    ("leaks.parquet has no column s1", no_column),
]


@pytest.mark.parametrize(("named", "damage"), DAMAGE)
def test_damage_gives_one_line_and_leaves_no_file(verified: Path, named: str, damage: Callable[[Path], object]):
    damage(verified)
    before = set(verified.iterdir())
    with pytest.raises(ReportError) as caught:
        write_report(verified)
    message = str(caught.value)
    assert named in message
    assert "\n" not in message
    assert set(verified.iterdir()) == before


def test_a_turn_is_told_by_its_sense():
    plain = PlainNames()
    assert gallery.transform_text("turned 0.1 degrees", plain) == "turned 0.1° counter-clockwise"
    assert gallery.transform_text("mirrored upside down, moved 3.0 px", plain) == "mirrored upside down, moved 3.0 px"
    hidden = Pseudonyms(bytes(32))
    for known in (
        "as it lies",
        "mirrored",
        "mirrored upside down, turned -12.0 degrees, scaled by 0.990, moved 9.1 px",
    ):
        assert gallery.transform_text(known, hidden) == gallery.transform_text(known, plain)
    for other in ("", "mirrored, patient-0001", "turned 1.0 degrees ", "as it lies, mirrored"):
        assert gallery.transform_text(other, hidden) == WITHHELD


def pixels_of(picture: images.Picture) -> np.ndarray:
    raw = base64.b64decode(picture.uri.removeprefix("data:image/png;base64,"))
    assert re.findall(rb"tEXt|iTXt|zTXt|tIME|eXIf|iCCP", raw) == []
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGB")).astype(int)


def views_of(folder: Path, **levels: np.ndarray) -> images.Views:
    names = ("real", "synthetic", "aligned", "agreement")
    for name in names:
        Image.fromarray(levels[name].astype(np.uint8)).save(folder / f"{name}.png")
    return images.verified_views(*(folder / f"{name}.png" for name in names))


def test_the_overlay_is_blue_where_they_agree_and_orange_where_not(tmp_path: Path):
    grey = np.random.default_rng(0).integers(0, 256, (40, 30))
    agreement = np.full((40, 30), 255)
    agreement[10:20, 10:20] = 128  # no correlation
    agreement[:, :4] = 0
    views = views_of(tmp_path, real=grey, synthetic=grey, aligned=grey, agreement=agreement)
    assert views.agreement is not None
    red, _, blue = np.moveaxis(pixels_of(views.agreement), 2, 0)
    differs = np.zeros((40, 30), bool)
    differs[10:20, 10:20] = True
    inside = agreement > 0
    assert (red[differs] > blue[differs] + 80).all()
    assert (blue[inside & ~differs] > red[inside & ~differs]).all()
    spread = np.ptp(pixels_of(views.agreement)[~inside], axis=1)
    assert (spread < 60).all()  # neither colour where nothing is known


def test_one_place_that_differs_is_not_averaged_away(tmp_path: Path):
    grey = np.random.default_rng(0).integers(0, 256, (256, 256))
    agreement = np.full((256, 256), 255)
    agreement[100, 200] = 1
    views = views_of(tmp_path, real=grey, synthetic=grey, aligned=grey, agreement=agreement)
    assert views.agreement is not None
    red, _, blue = pixels_of(views.agreement)[100, 200]
    assert red > blue + 150


def test_the_colours_of_the_overlay_fill_a_palette():
    colours = images.overlay_palette()
    assert colours.shape == (256, 3)
    assert tuple(colours[0]) == images.COOL[0]
    assert tuple(colours[-1]) == images.HATCH[1]


def test_the_difference_is_of_what_both_show(tmp_path: Path):
    rng = np.random.default_rng(0)
    synthetic = rng.integers(0, 120, (40, 30))
    aligned = synthetic * 2 + 10
    agreement = np.full((40, 30), 255)
    agreement[:, :8] = 0
    aligned[:, :8] = 0
    views = views_of(tmp_path, real=synthetic, synthetic=synthetic, aligned=aligned, agreement=agreement)
    shown = pixels_of(views.difference)
    # Another brightness and contrast inside, and black that is not of the image outside, are no difference.
    assert shown[:, 8:].max() < 40
    assert {tuple(rgb) for rgb in shown[:, :8].reshape(-1, 3)} == set(images.HATCH)


def test_another_size_is_brought_to_that_of_the_synthetic_image(tmp_path: Path):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (20, 15))
    agreement = np.full((20, 15), 255)
    agreement[:3] = 0
    large = np.kron(small, np.ones((2, 3), int))
    views = views_of(tmp_path, real=small, synthetic=large, aligned=small, agreement=agreement)
    assert views.is_resized
    assert views.aligned is not None
    assert views.agreement is not None
    assert {views.aligned.size, views.agreement.size, views.difference.size, views.synthetic.size} == {(45, 40)}
    red, _, blue = np.moveaxis(pixels_of(views.agreement)[6:], 2, 0)
    assert (blue > red).all()  # the border of the overlap is no disagreement


def test_a_pair_without_overlap_is_all_hatched(tmp_path: Path):
    grey = np.random.default_rng(0).integers(0, 256, (9, 9))
    views = views_of(tmp_path, real=grey, synthetic=grey, aligned=grey, agreement=np.zeros((9, 9)))
    assert {tuple(rgb) for rgb in pixels_of(views.difference).reshape(-1, 3)} == set(images.HATCH)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


@pytest.mark.parametrize("verify", [True, False])
def test_a_real_audit_says_what_was_looked_at(tmp_path: Path, verify: bool):
    shown = [image for _, _, image in make_cohort(6, 1, seed=5)]
    for number, image in enumerate(shown):
        save(tmp_path / "real" / str(number) / "a.png", image)
    save(tmp_path / "synthetic" / "turned.png", apply_view(shown[1], View(angle_deg=2.0)))
    save(tmp_path / "synthetic" / "other.png", next(image for _, _, image in make_cohort(1, 1, seed=6)))
    options = AuditOptions(images=ImageOptions(group_by="parent"), verify=verify, match=MatchOptions(k=4))
    result = audit(tmp_path / "real", tmp_path / "synthetic", tmp_path / "out", options=options)
    assert result.summary["verification"] == ({"candidates": 4} if verify else None)
    limits, details = " ".join(result.summary["limits"]), " ".join(result.summary["verdict"]["details"])
    assert ("Only the 4 nearest real images" in limits) == verify
    assert ("the 4 nearest real images of each synthetic image were laid onto it" in details) == verify
    assert ("No pair was verified in image space" in details) != verify
    html = write_report(result.folder).read_text(encoding="utf-8")
    assert html.count("<img") == html.count("<figure><img") + html.count('<figure class="is-')
    assert ("is-aligned" in html.split("</style>")[1]) == verify
    if verify:
        entries = json.loads((result.folder / "evidence" / "pairs.json").read_text())
        assert entries[0]["screening_rank"] == 1
        assert "turned 2.0° counter-clockwise" in words_of(html)


def test_an_audit_of_fewer_real_images_than_candidates_says_that_all_were_looked_at(tmp_path: Path):
    for number, (_, _, image) in enumerate(make_cohort(3, 1, seed=5)):
        save(tmp_path / ("real" if number < 2 else "synthetic") / f"{number}.png", image)
    result = audit(tmp_path / "real", tmp_path / "synthetic", tmp_path / "out")
    assert result.summary["verification"] == {"candidates": 2}
    details = " ".join(result.summary["verdict"]["details"])
    assert "all 2 real images were laid onto each synthetic image" in details
    assert "all 2 real images were looked at" in details
    assert "nearest" not in details
    assert not any("nearest" in line or "among the candidates" in line for line in result.summary["limits"])
    write_report(result.folder)
