from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from deepssim.audit import AuditOptions, audit
from deepssim.errors import StreamError, UsageError
from deepssim.images import Image, ImageOptions, Skipped, image_of, open_stream
from deepssim.matching import MatchOptions
from deepssim.sources import WorkFolder

TABLES = ("matches", "leaks", "real_images", "patients", "skipped")


def tar_of_folder(folder: Path, *, backwards: bool = False) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path in sorted(folder.rglob("*.png"), reverse=backwards):
            tar.add(path, path.relative_to(folder))
    return buffer.getvalue()


def tables(folder: Path) -> dict[str, str]:
    files = {name: folder / f"{name}.parquet" for name in TABLES}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items() if path.exists()}


def summary_of(folder: Path) -> Any:
    return json.loads((folder / "summary.json").read_text())


def record(folder: Path) -> Any:
    return json.loads((folder / "run.json").read_text())["inputs"]["synthetic"]


def options(verify: bool | None = False, keep: int = 100) -> AuditOptions:
    images, match = ImageOptions(group_by="parent"), MatchOptions(views="none")
    return AuditOptions(images=images, match=match, verify=verify, metric="pixel", keep=keep, max_skipped=1.0)


def kept(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "images" / "index.csv").open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def test_a_stream_is_audited_as_the_same_images_in_a_folder(cohort, tmp_path):
    given = {"holdout": cohort.holdout, "options": options(verify=None)}
    audit(cohort.real, cohort.synthetic, tmp_path / "folder", **given)
    audit(cohort.real, open_stream(io.BytesIO(tar_of_folder(cohort.synthetic))), tmp_path / "stream", **given)
    assert tables(tmp_path / "stream") == tables(tmp_path / "folder")
    assert summary_of(tmp_path / "stream") == summary_of(tmp_path / "folder")
    # The pictures of the report come from the images that were kept.
    evidence = [sorted((tmp_path / name / "evidence").iterdir()) for name in ("folder", "stream")]
    assert [path.name for path in evidence[0]] == [path.name for path in evidence[1]]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*evidence, strict=True))
    said = record(tmp_path / "stream")
    assert (said["source"], said["stream"]["kind"], said["kept_images"]) == ("standard input", "tar", 17)
    for path in (tmp_path / "stream").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path


def test_the_order_of_a_stream_changes_no_figure_and_no_kept_image(cohort, tmp_path):
    for name, backwards in (("a", False), ("b", True)):
        stream = open_stream(io.BytesIO(tar_of_folder(cohort.synthetic, backwards=backwards)))
        audit(cohort.real, stream, tmp_path / name, options=options(keep=3))
    assert summary_of(tmp_path / "a") == summary_of(tmp_path / "b")
    assert kept(tmp_path / "a") == kept(tmp_path / "b")


class Made:
    """A stream of noise, and of copies of the first real image, that can break, and can begin anywhere."""

    def __init__(self, n: int = 300, *, seed: int = 0, breaks_at: int | None = None, is_seekable: bool = False) -> None:
        self.n, self.seed, self.breaks_at, self.is_seekable = n, seed, breaks_at, is_seekable
        self.source, self.n_expected = "a sampler", 0
        self.first: list[int] = []
        self.n_made = 0

    def signature(self) -> dict[str, Any]:
        return {"kind": "made"}

    def images(self, first: int = 0) -> Iterator[Image | Skipped]:
        self.first.append(first)
        for number in range(first, self.n):
            if number == self.breaks_at:
                raise StreamError("the sampler was stopped")
            self.n_made += 1
            yield image_of(f"i{number}", self.pixels(number))

    def pixels(self, number: int) -> np.ndarray:
        if number % 50 == 7:
            return np.zeros((8, 8))  # cannot be used
        seed = 999 if number % 40 == 3 else self.seed * 1000 + number
        noise = np.random.default_rng(seed).integers(0, 255, (8, 8)).astype(np.float32)
        return noise if number % 2 else noise / 7  # what 8 bits do not hold


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("noise") / "real"
    for number in range(40):
        (folder / f"p{number}").mkdir(parents=True)
        noise = np.random.default_rng(999 - number).integers(0, 255, (8, 8)).astype(np.uint8)
        Pillow.fromarray(noise).save(folder / f"p{number}" / "a.png")
    return folder


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr("deepssim.stream_source.PART_IMAGES", 64)


def run(real: Path, synthetic: Made | Path, out: Path, keep: int = 5) -> None:
    audit(real, synthetic, out, options=options(keep=keep))


@pytest.fixture(scope="module")
def whole(real: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run gives that nothing disturbs."""
    out = tmp_path_factory.mktemp("whole") / "out"
    run(real, Made(), out)
    return out


def test_flagged_nearest_and_sampled_images_are_kept_as_they_came_and_no_others(whole):
    rows = kept(whole)
    copies = {f"i{n}" for n in range(300) if n % 40 == 3}
    assert {i for i, row in rows.items() if row["label"] != "unrelated"} == copies
    ids = [f"i{n}" for n in range(300) if n % 50 != 7]
    smallest = sorted(ids, key=lambda i: hashlib.sha256(b"sample\0" + i.encode()).hexdigest())[:5]
    assert {i for i, row in rows.items() if row["is_sample"] == "1"} == set(smallest)
    first = pq.read_table(whole / "matches.parquet", filters=[("rank", "=", 1)]).to_pylist()
    best = {}
    for row in sorted(first, key=lambda row: -row["score"]):
        if row["synthetic_id"] not in copies:
            best.setdefault(row["real_id"], []).append(row["synthetic_id"])
    nearest = {i for i, row in rows.items() if row["is_nearest"] == "1"}
    assert len(nearest) == 24
    assert nearest <= {i for some in best.values() for i in some[:2]}
    assert set(rows) == copies | set(smallest) | nearest
    files = {path.name for path in (whole / "images").iterdir()} - {"index.csv"}
    assert files == {row["file"] for row in rows.values()}
    for image_id, row in rows.items():
        path = whole / "images" / row["file"]
        read = np.load(path) if path.suffix == ".npy" else np.asarray(Pillow.open(path))
        assert (read == Made().pixels(int(image_id[1:]))).all()


@pytest.mark.parametrize("is_seekable", [False, True])
def test_a_killed_run_goes_on_with_the_same_stream_and_embeds_nothing_twice(
    real, whole, tmp_path, small_parts, monkeypatch, is_seekable
):
    from deepssim.embed import Encoder

    prepared = []
    add, prepare = WorkFolder.add, Encoder.prepare

    def die(self: WorkFolder, *given: Any) -> None:
        add(self, *given)
        if len(self.entries) in {1, 3}:
            raise KeyboardInterrupt

    def count(self: Encoder, pixels: np.ndarray) -> np.ndarray:
        prepared.append(1)
        return prepare(self, pixels)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(WorkFolder, "add", die)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                run(real, Made(is_seekable=is_seekable), out)
    assert not (out / "summary.json").exists()
    stream = Made(is_seekable=is_seekable)
    monkeypatch.setattr(Encoder, "prepare", count)
    run(real, stream, out)
    (first,) = stream.first
    assert (first > 0) == is_seekable
    assert len(prepared) < 300 - 3 * 64 + 20
    assert tables(out) == tables(whole)
    assert kept(out) == kept(whole)
    assert record(out)["digest"] == record(whole)["digest"]
    assert not list(out.glob(".work-*"))


def test_a_stream_that_breaks_off_is_an_error_and_goes_on_later(real, whole, tmp_path, small_parts):
    out = tmp_path / "out"
    with pytest.raises(StreamError, match=r"the sampler was stopped; its first 100 images are done: the same command"):
        run(real, Made(breaks_at=100), out)
    assert not (out / "summary.json").exists()
    with pytest.raises(StreamError, match="first 100 images are done"):
        run(real, Made(breaks_at=30), out)  # ends even sooner: nothing is lost
    run(real, Made(), out)
    assert tables(out) == tables(whole)
    assert kept(out) == kept(whole)


def test_another_stream_is_refused_with_what_to_do_and_changes_nothing(real, tmp_path, small_parts):
    out = tmp_path / "out"
    with pytest.raises(StreamError):
        run(real, Made(breaks_at=100), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for other in (Made(seed=1), Made(n=80)):
        with pytest.raises(UsageError, match=r"give that stream again .* --out, or remove \.work-"):
            run(real, other, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    run(real, Made(), out)


def test_images_of_a_stream_that_are_done_are_not_lost_to_other_options(real, tmp_path, small_parts):
    out = tmp_path / "out"
    with pytest.raises(StreamError):
        run(real, Made(breaks_at=100), out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match=r"holds 98 images of a run with other inputs .* remove \.work-"):
        run(real, Made(), out, keep=6)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    again = Made(is_seekable=True)
    run(real, again, out)
    assert again.first == [100]


def test_a_run_killed_after_it_moved_the_kept_images_still_has_them(real, tmp_path, small_parts, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("deepssim.audit.write_run", lambda *_, **__: sys.exit(9))
        with pytest.raises(SystemExit):
            run(real, Made(), out)
    first = {path.name: path.read_bytes() for path in (out / "images").iterdir()}
    run(real, Made(), out)
    assert {path.name: path.read_bytes() for path in (out / "images").iterdir()} == first


def test_kept_images_of_an_earlier_run_go_and_files_of_others_stay(real, tmp_path):
    out = tmp_path / "out"
    run(real, Made(), out)
    run(real, Made(n=30, seed=5), out, keep=2)
    assert all(int(i[1:]) < 30 for i in kept(out))
    synthetic = tmp_path / "synthetic"
    synthetic.mkdir()
    Pillow.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(synthetic / "a.png")
    run(real, synthetic, out)
    assert not (out / "images").exists()
    (out / "images").mkdir()
    (out / "images" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="in the way"):
        run(real, Made(), out)
    assert (out / "images" / "thesis.txt").read_text() == "precious"
    assert (out / "summary.json").exists()


def test_a_stream_without_a_usable_image_is_an_error(real, tmp_path):
    with pytest.raises(UsageError, match="there are none"):
        run(real, Made(n=0), tmp_path / "out")


def test_the_command_reads_standard_input(real, tmp_path, deepssim_here, monkeypatch):
    def with_input(data: bytes, *arguments: object) -> Any:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        quick = ("--metric", "pixel", "--views", "none", "--no-verify", "--out", tmp_path / "out")
        return deepssim_here("audit", *arguments, *quick)

    stack = io.BytesIO()
    np.save(stack, np.random.default_rng(3).integers(0, 255, (40, 8, 8)).astype(np.uint8))
    done = with_input(stack.getvalue(), real, "-", "--keep", "1")
    assert done.returncode == 0, done.stderr
    assert sum(row["is_sample"] == "1" for row in kept(tmp_path / "out").values()) == 1
    refused = [
        (with_input(b"", real, "-"), 1, "is empty"),
        (with_input(stack.getvalue()[:-1], real, "-"), 1, "breaks off"),
        (with_input(b"", "-", "-"), 2, "only SYNTHETIC"),
        (with_input(b"", real, tmp_path, "--keep", "3"), 2, "--keep is of a stream"),
    ]
    for result, code, words in refused:
        assert result.returncode == code, result.stderr
        assert words in result.stderr
        assert "Traceback" not in result.stderr
