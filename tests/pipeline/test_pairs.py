"""``deepssim pairs`` as a user runs it, and the work behind it."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture
from skimage.metrics import structural_similarity

from deepssim import image_ops
from deepssim.errors import MemoryLimitError, UsageError
from deepssim.images import ImageOptions
from deepssim.pairs import PairOptions, PairResult, compare, crossing, file_of, list_pairs, listed, make_pairs, making
from deepssim.perturb import View, apply_view, degrade, near_copy
from deepssim.phantom import make_cohort

SIZE = (34, 28)
COLUMNS = ["real_key", "synth_key", "ssim", "split"]
BY_FOLDER = ImageOptions(group_by="parent")
OPTIONS = PairOptions(number=300, seed=3, valid_part=0.25, images=BY_FOLDER)


class Stop(BaseException):
    """What a kill is to the code: nothing catches it."""


def stopping(function, after: int):
    calls = []

    def run(*arguments, **options):
        calls.append(1)
        if len(calls) > after:
            raise Stop
        return function(*arguments, **options)

    return run


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    byte = image if image.dtype == np.uint8 else np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    Picture.fromarray(byte).save(path)


@pytest.fixture(scope="session")
def people(tmp_path_factory) -> Path:
    """Eight people, three slices each."""
    root = tmp_path_factory.mktemp("pairs") / "real"
    for person, level, image in make_cohort(8, 3, seed=1, size=SIZE):
        save(root / person / f"z{level}.png", image)
    return root


@pytest.fixture(scope="session")
def both(people, tmp_path_factory) -> Path:
    """Real images, and near copies of them that are moved and mirrored at times, with others."""
    root = tmp_path_factory.mktemp("both")
    shutil.copytree(people, root / "real")
    rng = np.random.default_rng(2)
    for number, path in enumerate(sorted((root / "real").rglob("*.png"))):
        image = np.asarray(Picture.open(path)) / np.float32(255)
        view = View(angle_deg=float(rng.uniform(-5, 5)), flip_columns=number % 3 == 0, shift_px=(2.0, -3.0))
        save(root / "generated" / f"moved-{number:02d}.png", apply_view(image, view))
        save(root / "generated" / f"copy-{number:02d}.png", near_copy(image, rng, amplitude_px=(1, 6)))
        save(root / "generated" / f"noisy-{number:02d}.png", degrade(image, rng))
    return root


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def grey(folder: Path, key: str) -> np.ndarray:
    picture = Picture.open(folder / file_of(key))
    assert picture.mode == "L"
    return np.asarray(picture)


def oracle(a: np.ndarray, b: np.ndarray) -> float:
    """The published rule, in float64."""
    x, y = ((image - image.mean()) / image.std() for image in (a.astype(np.float64), b.astype(np.float64)))
    return float(structural_similarity(x, y, data_range=x.max() - x.min()))


def tenth(row: dict[str, str]) -> int:
    return min(int(np.floor(round(float(row["ssim"]) * 1e6) / 1e5)), 9)


def check_list(rows: list[dict[str, str]], result: PairResult) -> None:
    """What holds for every list, whatever it was made of."""
    assert list(rows[0])[:4] == COLUMNS
    assert len({(row["real_key"], row["synth_key"]) for row in rows}) == len(rows)
    assert Counter(row["split"] for row in rows) == Counter({k: n for k, n in result.n_pairs.items() if n})
    for column in ("real_key", "synth_key", "person"):
        train, valid = ({row[column] for row in rows if row["split"] == split} for split in ("train", "valid"))
        assert not train & valid, column
    for split in result.n_pairs:
        drawn = Counter(tenth(row) for row in rows if row["split"] == split)
        assert {round(b.low * 10): b.drawn[split] for b in result.bins if b.drawn[split]} == dict(drawn)
        most = max(drawn.values(), default=0)
        for one in result.bins:  # as even as there are pairs
            assert one.drawn[split] in (one.found[split], most, most - 1)
    assert all(a.high == b.low for a, b in zip(result.bins, result.bins[1:], strict=False))


@pytest.fixture(scope="session")
def made(people, tmp_path_factory) -> tuple[Path, PairResult]:
    out = tmp_path_factory.mktemp("made") / "pairs"
    return out, make_pairs(people, out, OPTIONS)


def test_partners_are_listed_with_the_ssim_of_their_files(made):
    out, result = made
    rows = read(out / "pairs.csv")
    check_list(rows, result)
    assert result.n_pairs == {"train": 225, "valid": 75}
    assert result.n_people == {"train": 6, "valid": 2}
    for row in rows[::7]:
        a, b = grey(out, row["real_key"]), grey(out, row["synth_key"])
        assert a.shape == b.shape == SIZE
        assert float(row["ssim"]) == pytest.approx(oracle(a, b), abs=2e-6)
    high = [row for row in rows if float(row["ssim"]) >= 0.7]
    assert len(high) > 80


def test_kinds_say_whose_partner_it_is(made, people):
    out, _ = made
    rows = read(out / "pairs.csv")
    known = {path.relative_to(people).as_posix()[:-4].replace("/", "-"): path.parent.name for path in
             people.rglob("*.png")}  # fmt: skip
    for row in rows:
        real, name = row["real_key"].split("___")
        source, partner = row["synth_key"].split("___")
        assert name == "training"
        assert row["person"] == known[real]
        own = partner.split("-")[0]
        expected = own if source == real else "same" if known[source] == known[real] else "other"
        assert row["kind"] == expected
        assert (row["kind"] == "deformed") == (row["amplitude_px"] not in ("", "0.0"))
        assert 1 <= float(row["amplitude_px"]) <= 14 if row["kind"] == "deformed" else True
        if row["kind"] == "identity":
            assert row["ssim"] == "1.0"
    assert {row["kind"] for row in rows} == {"identity", "artefacts", "deformed", "same", "other"}


def test_the_folder_holds_what_is_listed_and_nothing_else(made, people):
    out, result = made
    rows = read(out / "pairs.csv")
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} - {".lock"}
    images = {file_of(row["synth_key"]) for row in rows}
    real = {path.relative_to(people).as_posix()[:-4].replace("/", "-") + "/training.png" for path in
            people.rglob("*.png")}  # fmt: skip
    assert files == images | real | {"pairs.csv", "pairs.json", "skipped.csv"}
    assert (result.n_real, result.n_synthetic) == (24, len(images))
    assert all(path.stat().st_mode & 0o077 == 0 for path in out.rglob("*"))
    original = np.asarray(Picture.open(min(people.rglob("*.png"))))
    np.testing.assert_array_equal(grey(out, sorted(real)[0]), original)


@pytest.mark.parametrize("changed", [{"threads": 1}, {"threads": 3, "memory_limit": 30_000}, {"workers": 2}])
def test_threads_processes_and_memory_do_not_change_a_byte(made, people, tmp_path, changed):
    out, result = made
    again = make_pairs(people, tmp_path / "again", replace(OPTIONS, **changed))
    assert again.bins == result.bins
    paths = [path.relative_to(out) for path in out.rglob("*") if path.suffix in (".csv", ".png")]
    assert all((out / path).read_bytes() == (tmp_path / "again" / path).read_bytes() for path in paths)


def test_partners_may_be_registered_too(people, tmp_path, monkeypatch):
    options = replace(OPTIONS, target="registered", number=80)
    whole = make_pairs(people, tmp_path / "whole", options)
    rows = read(whole.out)
    check_list(rows, whole)
    a, b = (grey(whole.folder, rows[5][key]) for key in ("real_key", "synth_key"))
    found = image_ops.registered_similarity(a, b, image_ops.register(a, b).transform)
    assert float(rows[5]["ssim"]) == pytest.approx(found.ssim, abs=1e-6)
    with monkeypatch.context() as patch:
        patch.setattr(compare, "_REGISTER_PAIRS", 30)
        patch.setattr(compare, "_SECONDS", 0.0)
        patch.setattr(compare, "map_on_threads", stopping(compare.map_on_threads, 2))
        with pytest.raises(Stop):
            make_pairs(people, tmp_path / "cut", options)
    make_pairs(people, tmp_path / "cut", options)
    assert (tmp_path / "cut" / "pairs.csv").read_bytes() == whole.out.read_bytes()


def test_one_image_has_partners_of_its_own(people, tmp_path):
    image = min(people.rglob("*.png"))
    alone = PairOptions(number=80, valid_part=0, images=ImageOptions(group_by="none"))
    result = make_pairs(image, tmp_path / "out", alone)
    assert {row["kind"] for row in read(result.out)} == {"identity", "artefacts", "deformed"}
    assert sum(row["kind"] == "identity" for row in read(result.out)) == 1
    assert result.n_pairs["train"] == 80


def test_another_seed_gives_other_pairs(made, people, tmp_path):
    make_pairs(people, tmp_path / "other", replace(OPTIONS, seed=4))
    assert (made[0] / "pairs.csv").read_bytes() != (tmp_path / "other" / "pairs.csv").read_bytes()


@pytest.mark.parametrize(
    ("module", "name", "after"),
    [
        (making, "similarity_pairs", 0),
        (making, "similarity_pairs", 2),
        (compare, "similarity_matrix", 3),
        ("deepssim.pairs.made", "write_png", 40),
        ("deepssim.pairs.made", "write_pairs", 0),
    ],
)
def test_cut_short_anywhere_it_goes_on_to_the_same_bytes(made, people, tmp_path, monkeypatch, module, name, after):
    module = sys.modules[module] if isinstance(module, str) else module
    monkeypatch.setattr(compare, "_SECONDS", 0.0)
    monkeypatch.setattr(compare, "_TILE_SIDE", 40)
    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(module, name, stopping(getattr(module, name), after))
        with pytest.raises(Stop):
            make_pairs(people, out, OPTIONS)
    assert not (out / "pairs.csv").exists()
    make_pairs(people, out, OPTIONS)
    for path in made[0].rglob("*"):
        if path.suffix in (".csv", ".png"):
            assert (out / path.relative_to(made[0])).read_bytes() == path.read_bytes()
    names = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in (out, made[0])]
    assert names[0] == names[1]


def test_what_was_made_is_not_made_again(people, tmp_path, monkeypatch):
    out = tmp_path / "cut"
    with monkeypatch.context() as patch:
        patch.setattr(crossing, "compare_blocks", stopping(crossing.compare_blocks, 2))
        with pytest.raises(Stop):
            make_pairs(people, out, OPTIONS)
    monkeypatch.setattr(making.Maker, "_make", None)
    monkeypatch.setattr("deepssim.pixel_set.read_tasks", None)
    make_pairs(people, out, OPTIONS)
    assert (out / "pairs.csv").exists()


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_killed_and_started_again_it_goes_on(deepssim, people, tmp_path):
    arguments = ["pairs", people, "--out", "out", "--number", 3000, "--group-by", "parent", "--num-workers", 2]
    code = "from deepssim.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob("out/.work/partners_train-*.npz")) or running.poll() is not None)
    running.send_signal(signal.SIGKILL)
    # Processes that it started hold its stderr, so this ends when they have ended too.
    _, text = running.communicate(timeout=30)
    assert running.returncode == -signal.SIGKILL
    assert "Traceback" not in text
    assert not (tmp_path / "out" / "pairs.csv").exists()
    done = deepssim(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    arguments[3] = "whole"
    assert deepssim(*arguments[:-2], "--num-workers", 0, cwd=tmp_path).returncode == 0
    assert (tmp_path / "out/pairs.csv").read_bytes() == (tmp_path / "whole/pairs.csv").read_bytes()


def test_a_folder_is_reused_continued_refused_or_overwritten_as_asked(deepssim, people, tmp_path):
    common = ("pairs", people, "--out", tmp_path / "out", "--group-by", "parent", "--valid-part", 0.25, "--number", 60)
    first = deepssim(*common, "--json")
    assert first.returncode == 0, first.stderr
    result = PairResult.of(json.loads(first.stdout))
    check_list(read(tmp_path / "out" / "pairs.csv"), result)
    assert "partners" in first.stderr
    again = deepssim(*common, "--json")
    assert "reusing" in again.stderr
    assert json.loads(again.stdout) == json.loads(first.stdout)
    other = deepssim(*common, "--seed", 1)
    assert other.returncode == 2
    for text in ("other images or options (seed)", "--overwrite"):
        assert text in other.stderr
    (tmp_path / "out" / "notes.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "out" / "mine.png").write_bytes(b"mine")
    before = (tmp_path / "out" / "pairs.csv").read_bytes()
    over = deepssim(*common, "--seed", 1, "--overwrite")
    assert over.returncode == 0, over.stderr
    assert "drawn" in over.stdout
    assert (tmp_path / "out" / "pairs.csv").read_bytes() != before
    assert (tmp_path / "out" / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert (tmp_path / "out" / "mine.png").read_bytes() == b"mine"
    listed_files = {file_of(row["synth_key"]) for row in read(tmp_path / "out" / "pairs.csv")}
    found = {f"{p.parent.name}/{p.name}" for p in (tmp_path / "out").glob("*/*.png")}
    assert found - listed_files == {f"{p.parent.name}/training.png" for p in (tmp_path / "out").glob("*/training.png")}
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "notes.txt").touch()
    refused = deepssim("pairs", people, "--out", strange, "--group-by", "parent", "--overwrite")
    assert refused.returncode == 2
    assert "holds other files" in refused.stderr


def test_generated_images_are_listed_with_the_ssim_of_their_files(both, tmp_path):
    result = list_pairs(both / "real", both / "generated", tmp_path / "pairs.csv", replace(OPTIONS, target="ssim"))
    rows = read(tmp_path / "pairs.csv")
    check_list(rows, result)
    assert result.folder == both
    assert (result.n_real, result.n_synthetic, result.n_compared) == (24, 72, 24 * 72)
    for row in rows[::9]:
        assert float(row["ssim"]) == pytest.approx(oracle(grey(both, row["real_key"]), grey(both, row["synth_key"])),
                                                   abs=2e-6)  # fmt: skip
    assert {row["kind"] for row in rows} == {"generated"}


def test_a_synthetic_image_follows_the_real_one_that_is_most_like_it(both, tmp_path):
    result = list_pairs(both / "real", both / "generated", tmp_path / "pairs.csv",
                        replace(OPTIONS, target="ssim", number=10_000))  # fmt: skip
    rows = read(tmp_path / "pairs.csv")
    real = {row["real_key"]: row["split"] for row in rows}
    for key in {row["synth_key"] for row in rows}:
        image = grey(both, key)
        nearest = max(real, key=lambda name: oracle(grey(both, name), image))
        assert {row["split"] for row in rows if row["synth_key"] == key} == {real[nearest]}
    # All pairs within a split, then: nothing was left out, nothing listed twice.
    assert sum(result.n_pairs.values()) == len(rows) == sum(sum(b.found.values()) for b in result.bins)
    assert any("could be drawn" in line for line in result.warnings)


def test_registered_pairs_have_the_similarity_of_the_registered_images(both, tmp_path):
    result = list_pairs(both / "real", both / "generated", tmp_path / "pairs.csv", OPTIONS)
    assert result.target == "registered"
    rows = read(tmp_path / "pairs.csv")
    check_list(rows, result)
    for row in rows[::9]:
        a, b = grey(both, row["real_key"]), grey(both, row["synth_key"])
        transform = image_ops.register(a, b).transform
        found = image_ops.registered_similarity(a, b, transform)
        assert float(row["ssim"]) == pytest.approx(found.ssim, abs=1e-6)
        assert int(row["is_mirrored"]) == transform.is_mirrored
        assert float(row["shift_rows"]) == pytest.approx(transform.shift_rows, abs=1e-4)
    # Copies that were moved and mirrored are found, though they are not alike as they lie.
    paths = sorted((both / "real").rglob("*.png"))
    keys = {f"generated___moved-{k:02d}": f"real/{p.parent.name}___{p.stem}" for k, p in enumerate(paths)}
    copies = [row for row in rows if keys.get(row["synth_key"]) == row["real_key"]]
    assert len(copies) > 12
    assert np.median([float(row["ssim"]) for row in copies]) > 0.8
    assert np.median([oracle(grey(both, row["real_key"]), grey(both, row["synth_key"])) for row in copies]) < 0.6
    assert {row["is_mirrored"] for row in copies} == {"0", "1"}


@pytest.mark.parametrize(("module", "name", "after"), [
    (listed, "nearest", 0), (compare, "map_on_threads", 1), (compare, "similarity_matrix", 2),
    (listed, "write_pairs", 0),
])  # fmt: skip
def test_a_list_that_was_cut_short_goes_on_to_the_same_bytes(both, tmp_path, monkeypatch, module, name, after):
    whole = list_pairs(both / "real", both / "generated", tmp_path / "whole.csv", OPTIONS)
    for constant, value in (("_SECONDS", 0.0), ("_TILE_SIDE", 20), ("_REGISTER_PAIRS", 50)):
        monkeypatch.setattr(compare, constant, value)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, stopping(getattr(module, name), after))
        with pytest.raises(Stop):
            list_pairs(both / "real", both / "generated", tmp_path / "cut.csv", OPTIONS)
    assert not (tmp_path / "cut.csv").exists()
    done = list_pairs(both / "real", both / "generated", tmp_path / "cut.csv", replace(OPTIONS, threads=1))
    assert (tmp_path / "cut.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert done.bins == whole.bins
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_one_folder_for_both_is_the_references_layout(deepssim, people, tmp_path):
    rng = np.random.default_rng(0)
    for path in sorted(people.rglob("*.png")):
        uid = f"{path.parent.name}-{path.stem}"
        image = np.asarray(Picture.open(path))
        save(tmp_path / "data" / uid / "training.png", image)
        for k in range(2):
            save(tmp_path / "data" / uid / f"gen-{k}.png", degrade(image / np.float32(255), rng))
    data = tmp_path / "data"
    by_name = r"regex:(patient-\d+)"
    done = deepssim("pairs", data, data, "--out", data / "pairs.csv", "--target", "ssim", "--number", 80, "--group-by",
                    by_name, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert (value["n_real"], value["n_synthetic"]) == (24, 48)
    for row in read(data / "pairs.csv"):
        assert row["real_key"].endswith("___training")
        # As the reference implementation finds its files.
        for key in (row["real_key"], row["synth_key"]):
            uid, name = key.split("___")
            assert (data / uid / f"{name}.png").is_file()
        assert row["person"] == row["real_key"][:11]


def test_fewer_pairs_are_compared_where_that_is_asked_for(both, tmp_path):
    options = replace(OPTIONS, target="ssim", compare=200, number=60)
    result = list_pairs(both / "real", both / "generated", tmp_path / "pairs.csv", options)
    assert result.n_compared <= 200 + 3 * 72 // 5
    assert result.n_real < 24
    check_list(read(tmp_path / "pairs.csv"), result)


def test_16_bit_images_are_brought_to_grey_values_first(people, tmp_path):
    for path in people.rglob("*.png"):
        target = tmp_path / "deep" / path.relative_to(people)
        target.parent.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(np.asarray(Picture.open(path)).astype(np.uint16) * 257).save(target)
    result = make_pairs(tmp_path / "deep", tmp_path / "out", replace(OPTIONS, number=40))
    image = grey(tmp_path / "out", read(result.out)[0]["real_key"])
    assert image.min() == 0
    assert image.max() == 255


def test_sizes_that_differ_are_refused_or_resized(deepssim, people, tmp_path):
    shutil.copytree(people, tmp_path / "real")
    save(
        tmp_path / "real" / "patient-000" / "odd.png", np.arange(40 * 30, dtype=np.uint16).reshape(40, 30).astype("u1")
    )
    common = ("pairs", tmp_path / "real", "--group-by", "parent", "--number", 40, "-q")
    done = deepssim(*common, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "--resize 40x30" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    done = deepssim(*common, "--out", tmp_path / "out2", "--resize", "20x16", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_resized"] == 25
    assert grey(tmp_path / "out2", read(tmp_path / "out2" / "pairs.csv")[0]["synth_key"]).shape == (20, 16)


def test_what_cannot_be_used_is_skipped_listed_and_counted(deepssim, people, tmp_path):
    shutil.copytree(people, tmp_path / "real")
    save(tmp_path / "real" / "patient-000" / "flat.png", np.full(SIZE, 7, np.uint8))
    (tmp_path / "real" / "patient-001" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    common = ("pairs", tmp_path / "real", "--out", tmp_path / "out", "--group-by", "parent", "--number", 40, "-q")
    done = deepssim(*common, "--json")
    assert done.returncode == 4
    assert "skipped.csv" in done.stderr
    assert json.loads(done.stdout)["n_skipped"] == 2
    assert {row["code"] for row in read(tmp_path / "out" / "skipped.csv")} >= {"constant"}
    assert deepssim(*common, "--max-skipped", 0.2).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("REAL", "--out", "new"), "--group-by parent"),
        (("REAL", "--out", "new.csv", "--group-by", "parent"), "name a folder"),
        (("REAL", "--out", "REAL/new", "--group-by", "parent"), "lies inside the images"),
        (("nowhere", "--out", "new"), "nowhere"),
        (("empty", "--out", "new"), "no images"),
        (("REAL/patient-000", "--out", "new", "--group-by", "regex:(z)"), "1 person"),
        (("REAL", "--out", "new", "--group-by", "parent", "--resize", "6x40"), "7 x 7"),
        (("REAL", "--out", "new", "--group-by", "parent", "--memory-limit", "100"), "memory limit"),
        (("REAL", "--out", "new", "--group-by", "parent", "--valid-part", "0.9"), "valid-part"),
        (("REAL", "--out", "new", "--group-by", "parent", "--number", "0"), "number"),
        (("REAL", "GENERATED", "--out", "new"), "must end in .csv"),
        (("REAL", "GENERATED", "--out", "p.csv"), "--group-by parent"),
        (("REAL", "REAL", "--out", "p.csv", "--group-by", "parent"), "training"),
        (("BOTH", "REAL", "--out", "p.csv", "--group-by", "parent"), "one in the other"),
        (("REAL", "stack.npy", "--out", "p.csv", "--group-by", "parent"), "several images"),
        (("REAL", "GENERATED", "--out", "p.csv", "--group-by", "parent", "--overwrite"), "--overwrite"),
        (("REAL", "odd___name", "--out", "p.csv", "--group-by", "parent"), "rename it"),
        (("REAL", "other-size", "--out", "p.csv", "--group-by", "parent"), "--resize 34x28"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(deepssim, both, tmp_path, arguments, says):
    places = {"REAL": both / "real", "GENERATED": both / "generated", "BOTH": both}
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "stack.npy", np.zeros((2, *SIZE), np.uint8))
    save(tmp_path / "odd___name" / "a.png", np.arange(34 * 28, dtype=np.uint16).reshape(SIZE).astype("u1"))
    save(tmp_path / "other-size" / "a.png", np.arange(20 * 20, dtype=np.uint16).reshape(20, 20).astype("u1"))
    parts = [str(places.get(a, a)).replace("REAL", str(both / "real")) for a in arguments]
    done = deepssim("pairs", *parts, "-q", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    assert len([line for line in done.stderr.strip().splitlines() if line.startswith("Error")]) == 1
    assert not list(tmp_path.glob("**/pairs.csv"))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_warnings_are_said_to_whoever_wants_no_progress_too(deepssim, both, tmp_path):
    parts = ("pairs", both / "real", both / "generated", "--out", tmp_path / "p.csv", "--group-by", "parent")
    done = deepssim(*parts, "--target", "ssim", "--number", 10_000, "-q")
    assert done.returncode == 0, done.stderr
    assert "could be drawn" in done.stderr
    assert all(line.startswith("Warning: ") for line in done.stderr.splitlines())


def test_everybody_may_train(people, tmp_path):
    result = make_pairs(people, tmp_path / "out", replace(OPTIONS, valid_part=0.0, number=50))
    assert result.n_pairs == {"train": 50, "valid": 0}
    assert result.warnings == []


def test_options_that_cannot_be_are_refused():
    for changed in ({"number": 0}, {"valid_part": 0.7}, {"target": "mse"}, {"compare": 0}, {"seed": -1}):
        with pytest.raises(UsageError):
            replace(OPTIONS, **changed)


def test_two_runs_into_one_folder_do_not_meet(people, tmp_path, monkeypatch):
    def second(*_arguments, **_options):
        make_pairs(people, tmp_path / "out", OPTIONS)

    monkeypatch.setattr(making, "similarity_pairs", second)
    with pytest.raises(UsageError, match="another run"):
        make_pairs(people, tmp_path / "out", OPTIONS)


def test_a_memory_limit_names_the_least(people, tmp_path):
    with pytest.raises(MemoryLimitError, match="give at least") as caught:
        make_pairs(people, tmp_path / "out", replace(OPTIONS, memory_limit=10))
    least = caught.value.minimum_bytes
    assert make_pairs(people, tmp_path / "out", replace(OPTIONS, memory_limit=least, number=20, valid_part=0.0))


def test_the_help_teaches(deepssim):
    done = deepssim("pairs", "--help")
    assert done.returncode == 0
    for text in ("deepssim pairs train/", "data/generated/", "--target", "registered", "uid___name"):
        assert text in done.stdout
