"""``deepssim matrix`` as a user runs it, and the work behind it."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from deepssim import image_ops, matrix
from deepssim.errors import MemoryLimitError, UsageError
from deepssim.matrix import MatrixOptions, compute_matrix


def save_all(folder: Path, images: np.ndarray) -> Path:
    for number, image in enumerate(images):
        path = folder / f"p{number:02d}" / "training.png"
        path.parent.mkdir(parents=True)
        Picture.fromarray(image).save(path)
    return folder


@pytest.fixture
def sets(tmp_path):
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (7, 20, 17), dtype=np.uint8)
    synthetic = rng.integers(0, 256, (5, 20, 17), dtype=np.uint8)
    return save_all(tmp_path / "real", real), save_all(tmp_path / "synthetic", synthetic), real, synthetic


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(".")]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("ssim",), lambda a, b: image_ops.ssim(a, b, data_range=None, with_z_score=True)),
        (("ssim", "--no-z-score", "--data-range", "255"), lambda a, b: image_ops.ssim(a, b, data_range=255)),
        (
            ("ssim", "--window", "gaussian"),
            lambda a, b: image_ops.ssim(a, b, data_range=None, with_z_score=True, window="gaussian"),
        ),
        (("fsim",), image_ops.fsim),
        (("ncc",), image_ops.ncc),
    ],
)
def test_rows_are_real_and_columns_synthetic_images(deepssim, sets, tmp_path, arguments, expected):
    real, synthetic, a, b = sets
    kind, *options = arguments
    done = deepssim("matrix", kind, real, synthetic, "--out", tmp_path / "out" / "m.npy", *options, "--json")
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert (value["n_real"], value["n_synthetic"], value["size"]) == (7, 5, [20, 17])
    assert "pairs" in done.stderr
    values = np.load(tmp_path / "out" / "m.npy")
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, [[expected(x, y) for y in b] for x in a], atol=1e-6)
    rows = read_csv(tmp_path / "out" / "m.real.csv")
    assert rows[3] == {"row": "3", "id": "p03/training.png", "path": "p03/training.png"}
    assert [r["column"] for r in read_csv(tmp_path / "out" / "m.synthetic.csv")] == list("01234")
    assert read_csv(tmp_path / "out" / "m.skipped.csv") == []
    assert leftovers(tmp_path / "out") == []


def test_npz_is_what_the_reference_reads(deepssim, sets, tmp_path):
    real, synthetic, a, b = sets
    done = deepssim(
        "matrix", "ssim", real, synthetic, "--out", tmp_path / "m.npz", "--float16",
        "--real-indices", tmp_path / "real.npz", "--synthetic-indices", tmp_path / "synth.npz",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "float16" in done.stderr
    assert ".0005" in done.stderr
    values = np.load(tmp_path / "m.npz")["data"]
    assert values.dtype == np.float16
    expected = [[image_ops.ssim(x, y, data_range=None, with_z_score=True) for y in b] for x in a]
    np.testing.assert_array_equal(values, np.array(expected, np.float32).astype(np.float16))
    assert np.load(tmp_path / "real.npz")["data"].tolist() == [f"p{n:02d}___training" for n in range(7)]
    assert np.load(tmp_path / "synth.npz")["data"].shape == (5,)
    done = deepssim("matrix", "ssim", real, synthetic, "--out", tmp_path / "m.npz", "-q")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "m.npz")["data"].dtype == np.float32
    np.testing.assert_allclose(np.load(tmp_path / "m.npz")["data"], expected, atol=1e-6)
    assert deepssim("matrix", "ncc", real, synthetic, "--out", tmp_path / "m.npy", "--float16", "-q").returncode == 2


def in_layout(tmp_path: Path, n_people: int = 4) -> tuple[Path, dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    images = {
        f"p{k}___{name}": rng.integers(0, 256, (16, 12), dtype=np.uint8)
        for k in range(n_people)
        for name in ("training", "gen-0", "gen-1")
    }
    for key, image in images.items():
        path = tmp_path / "data" / key.split("___")[0] / f"{key.split('___')[1]}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Picture.fromarray(image).save(path)
    return tmp_path / "data", images


def test_rows_and_columns_follow_the_given_indices(deepssim, tmp_path):
    data, images = in_layout(tmp_path)
    real, synthetic = ["p3___training", "p0___training"], ["p1___gen-1", "p0___gen-0", "p3___gen-0"]
    np.savez(tmp_path / "r.npz", data=np.array(real))
    np.savez(tmp_path / "s.npz", data=np.array(synthetic))
    done = deepssim("matrix", "ssim", data, "--real-keys", tmp_path / "r.npz", "--synth_keys", tmp_path / "s.npz",
                    "--out", tmp_path / "m.npz", "-q")  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = [
        [image_ops.ssim(images[a], images[b], data_range=None, with_z_score=True) for b in synthetic] for a in real
    ]
    np.testing.assert_allclose(np.load(tmp_path / "m.npz")["data"], expected, atol=1e-6)
    assert np.load(tmp_path / "m.real.npz")["data"].tolist() == real
    assert np.load(tmp_path / "m.synthetic.npz")["data"].tolist() == synthetic


def test_what_keys_name_and_cannot_be_used_is_nan_in_its_place(deepssim, tmp_path):
    data, _ = in_layout(tmp_path)
    for key in ("p1/training", "p2/gen-0", "p3/gen-1"):
        Picture.fromarray(np.zeros((16, 12), np.uint8)).save(data / f"{key}.png")
    real = [f"p{k}___training" for k in range(4)]
    synthetic = [f"p{k}___gen-{n}" for k in range(4) for n in range(2)]
    np.savez(tmp_path / "r.npz", data=np.array(real))
    np.savez(tmp_path / "s.npz", data=np.array(synthetic))
    for name in ("m.npz", "m.npy"):
        done = deepssim("matrix", "ncc", data, "--real-keys", tmp_path / "r.npz", "--synthetic-keys",
                        tmp_path / "s.npz", "--out", tmp_path / name)  # fmt: skip
        assert done.returncode == 4
        assert "NaN" in done.stdout
    found = np.load(tmp_path / "m.npz")["data"]
    missing = np.zeros((4, 8), bool)
    missing[1], missing[:, [4, 7]] = True, True
    np.testing.assert_array_equal(np.isnan(found), missing)
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), found)


def test_unknown_keys_are_all_named(deepssim, tmp_path):
    data, _ = in_layout(tmp_path)
    np.savez(tmp_path / "r.npz", data=np.array(["p0___training", "p9___training", "../x___training"]))
    np.savez(tmp_path / "s.npz", data=np.array(["p0___gen-0"]))
    keys = ("--real-keys", tmp_path / "r.npz", "--synthetic-keys", tmp_path / "s.npz")
    done = deepssim("matrix", "ssim", data, *keys, "--out", tmp_path / "m.npz", "-q")
    assert done.returncode == 2
    assert "p9___training" in done.stderr
    assert "../x___training" in done.stderr
    assert "p0___training" not in done.stderr
    done = deepssim("matrix", "ssim", data, *keys[:2], "--out", tmp_path / "m.npz", "-q")
    assert done.returncode == 2
    assert "both" in done.stderr


def test_one_folder_is_divided_by_the_name_of_its_images(deepssim, tmp_path):
    data, _ = in_layout(tmp_path)
    done = deepssim("matrix", "ncc", data, "--out", tmp_path / "m.npz", "-q")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "m.real.npz")["data"].tolist() == [f"p{k}___training" for k in range(4)]
    assert np.load(tmp_path / "m.npz")["data"].shape == (4, 8)


def test_one_name_for_two_images_is_refused_in_the_references_files(deepssim, sets, tmp_path):
    real, synthetic, *_ = sets
    shutil.copytree(real / "p00", real / "more" / "p00")
    done = deepssim("matrix", "ncc", real, synthetic, "--out", tmp_path / "m.npz", "-q")
    assert done.returncode == 2
    assert "p00___training" in done.stderr
    assert leftovers(tmp_path) == []


def test_sizes_that_differ_are_an_error_that_names_the_image_and_the_way_out(deepssim, sets, tmp_path):
    real, synthetic, a, b = sets
    Picture.fromarray(np.arange(24 * 18, dtype=np.uint16).reshape(24, 18).astype(np.uint8)).save(synthetic / "odd.png")
    common = ("matrix", "ssim", real, synthetic, "--out", tmp_path / "m.npy", "-q")
    done = deepssim(*common)
    assert done.returncode == 2
    for text in ("odd.png", "24 x 18", "20 x 17", "--resize 20x17"):
        assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "m.npy").exists()
    assert leftovers(tmp_path) == []
    done = deepssim(*common, "--resize", "10x9", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_resized"] == 13
    x, y = (image_ops.resize_area(image.astype(np.float32), 10, 9) for image in (a[2], b[4]))
    columns = [r["id"] for r in read_csv(tmp_path / "m.synthetic.csv")]
    expected = image_ops.ssim(x, y, data_range=None, with_z_score=True)
    found = np.load(tmp_path / "m.npy")[2, columns.index("p04/training.png")]
    assert found == pytest.approx(expected, abs=1e-6)


def test_broken_images_are_skipped_listed_and_counted(deepssim, sets, tmp_path):
    real, synthetic, *_ = sets
    (synthetic / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    Picture.fromarray(np.full((20, 17), 9, np.uint8)).save(synthetic / "flat.png")
    (synthetic / "notes.txt").write_text("no image", encoding="utf-8")
    common = ("matrix", "ncc", real, synthetic, "--out", tmp_path / "m.npy", "-q")
    done = deepssim(*common)
    assert done.returncode == 4
    assert "m.skipped.csv" in done.stderr
    assert np.load(tmp_path / "m.npy").shape == (7, 5)
    reasons = {r["path"]: (r["set"], r["code"]) for r in read_csv(tmp_path / "m.skipped.csv")}
    assert reasons["flat.png"] == ("synthetic", "constant")
    assert reasons["broken.png"][0] == "synthetic"
    assert reasons["notes.txt"] == ("synthetic", "ignored")
    assert deepssim(*common, "--max-skipped", "0.5").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("ssim", "REAL", "SYNTHETIC", "--out", "m.csv"), 2, ".npy"),
        (("ssim", "REAL", "nowhere", "--out", "m.npy"), 2, "nowhere"),
        (("ncc", "REAL", "SYNTHETIC", "--out", "m.npy", "--window", "gaussian"), 2, "--window"),
        (("ssim", "REAL", "SYNTHETIC", "--out", "m.npy", "--data-range", "-1"), 2, "data-range"),
        (("ssim", "REAL", "SYNTHETIC", "--out", "m.npy", "--resize", "10"), 2, "256x256"),
        (("ssim", "REAL", "SYNTHETIC", "--out", "m.npy", "--resize", "5x40"), 2, "7 x 7"),
        (("ssim", "REAL", "SYNTHETIC", "--out", "m.npy", "--memory-limit", "1000"), 2, "memory limit"),
        (("ssim", "REAL", "SYNTHETIC", "--out", "m.npz", "--real-indices", "real.csv"), 2, ".npz"),
        (("ssim", "REAL", "SYNTHETIC", "--out", "m.npy", "--real-indices", "m.npy"), 2, "names"),
        (("ssim", "REAL", "SYNTHETIC", "--out", "real/m.npy"), 2, "outside"),
        (("mse", "REAL", "SYNTHETIC", "--out", "m.npy"), 2, "ssim"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(deepssim, sets, tmp_path, arguments, code, says):
    places = {"REAL": sets[0], "SYNTHETIC": sets[1]}
    done = deepssim("matrix", *(places.get(a, a) for a in arguments), "-q", cwd=tmp_path)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    assert leftovers(tmp_path) == []


def test_16_bit_images_are_compared_at_full_depth(deepssim, tmp_path):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 4096, (3, 16, 16)).astype(np.uint16)
    np.save(tmp_path / "a.npy", images)
    for kind in ("ssim", "fsim"):
        done = deepssim(
            "matrix", kind, tmp_path / "a.npy", tmp_path / "a.npy", "--out", tmp_path / f"{kind}.npy", "--json"
        )
        assert json.loads(done.stdout)["n_scaled"] == (6 if kind == "fsim" else 0)
    a, b = images[:2].astype(np.float32)
    expected = image_ops.ssim(a, b, data_range=None, with_z_score=True)
    assert np.load(tmp_path / "ssim.npy")[0, 1] == pytest.approx(expected, abs=1e-6)
    a, b = (image_ops.unit_grey(image) * np.float32(255) for image in (a, b))
    assert np.load(tmp_path / "fsim.npy")[0, 1] == pytest.approx(image_ops.fsim(a, b), abs=1e-6)


def test_tiles_do_not_change_numbers(sets, tmp_path, monkeypatch):
    real, synthetic, *_ = sets
    whole = np.load(compute_matrix(real, synthetic, tmp_path / "whole.npy").out)
    image_bytes = 20 * 17 * 4
    small = MatrixOptions(memory_limit=2 * (2 * image_bytes + 4096))
    assert small.tile_side((20, 17)) < 5
    np.testing.assert_array_equal(np.load(compute_matrix(real, synthetic, tmp_path / "small.npy", small).out), whole)
    with pytest.raises(MemoryLimitError) as caught:
        MatrixOptions(memory_limit=4000).tile_side((20, 17))
    assert MatrixOptions(memory_limit=caught.value.minimum_bytes).tile_side((20, 17)) == 1


def test_a_run_that_was_cut_short_goes_on_at_its_last_whole_tile(sets, tmp_path, monkeypatch):
    real, synthetic, *_ = sets
    monkeypatch.setattr(matrix, "_TILE_SIDE", 2)
    calls = []

    def failing(*arguments, **options):
        calls.append(arguments[1].shape)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return image_ops.similarity_matrix(*arguments, **options)

    monkeypatch.setattr(matrix, "similarity_matrix", failing)
    with pytest.raises(KeyboardInterrupt):
        compute_matrix(real, synthetic, tmp_path / "m.npy")
    assert not (tmp_path / "m.npy").exists()
    monkeypatch.setattr("deepssim.pixel_set.read_tasks", None)  # images are not decoded again
    done = compute_matrix(real, synthetic, tmp_path / "m.npy")
    assert len(calls) == 6 + 12 - 5
    assert leftovers(tmp_path) == []
    monkeypatch.undo()
    whole = compute_matrix(real, synthetic, tmp_path / "whole.npy")
    np.testing.assert_array_equal(np.load(done.out), np.load(whole.out))


def test_other_images_or_options_start_anew_and_clear_what_was_left(sets, tmp_path, monkeypatch):
    real, synthetic, *_ = sets

    def interrupted(*_arguments, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(matrix, "similarity_matrix", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compute_matrix(real, synthetic, tmp_path / "m.npy")
    assert len(leftovers(tmp_path)) == 1
    monkeypatch.undo()
    compute_matrix(real, synthetic, tmp_path / "m.npy", MatrixOptions(kind="ncc"))
    assert leftovers(tmp_path) == []


def test_two_runs_of_one_result_do_not_meet(sets, tmp_path, monkeypatch):
    real, synthetic, *_ = sets

    def second(*_arguments, **_options):
        compute_matrix(real, synthetic, tmp_path / "m.npy")

    monkeypatch.setattr(matrix, "similarity_matrix", second)
    with pytest.raises(UsageError, match="another run"):
        compute_matrix(real, synthetic, tmp_path / "m.npy")


def wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_and_started_again_it_goes_on(deepssim, tmp_path, how):
    rng = np.random.default_rng(2)
    np.save(tmp_path / "a.npy", rng.integers(0, 256, (300, 96, 96), dtype=np.uint8))
    arguments = ["matrix", "ssim", "a.npy", "a.npy", "--out", "m.npy", "--memory-limit", "2MiB", "--threads", "1"]
    # Shells ignore interrupts for what they start in the background, and children inherit that.
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from deepssim.cli import main; main()"
    )
    command = [sys.executable, "-c", code, *arguments]
    running = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: list(tmp_path.glob(".m.npy.work-*/tiles.json")) or running.poll() is not None)
    running.send_signal(how)
    _, text = running.communicate()
    assert running.returncode == (130 if how == signal.SIGINT else -how)
    assert "Traceback" not in text
    assert not (tmp_path / "m.npy").exists()
    done = deepssim(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "continuing after" in done.stderr
    assert leftovers(tmp_path) == []
    again = deepssim(*arguments[:4], "--out", "whole.npy", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "m.npy"), np.load(tmp_path / "whole.npy"))


def test_real_images_have_the_references_numbers(data_folder, tmp_path):
    golden = data_folder.parent / "golden" / "pairs.csv"
    if not golden.is_file():
        pytest.skip("golden/pairs.csv is not beside the images")
    pairs = [r for r in read_csv(golden) if r["a"].startswith("brain")]
    for side, name in (("a", "real"), ("b", "synthetic")):
        for path in {r[side] for r in pairs}:
            target = tmp_path / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(data_folder / path, target)
    for kind, tolerance in (("ssim", 1e-6), ("fsim", 1e-5)):
        options = MatrixOptions(kind=kind)
        done = compute_matrix(tmp_path / "real", tmp_path / "synthetic", tmp_path / f"{kind}.npy", options)
        values = np.load(done.out)
        row = {r["id"]: int(r["row"]) for r in read_csv(done.real_index)}
        column = {r["id"]: int(r["column"]) for r in read_csv(done.synthetic_index)}
        found = [values[row[r["a"]], column[r["b"]]] for r in pairs]
        np.testing.assert_allclose(found, [float(r[kind]) for r in pairs], atol=tolerance)
