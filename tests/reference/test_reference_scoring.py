"""All scores of a folder in the reference's files: which, where, and what must not happen."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity

from deepssim.embed import Encoder
from deepssim.errors import MemoryLimitError, StoreError, UsageError
from deepssim.exact_block import score_block
from deepssim.images import list_images
from deepssim.labelled import LabelledPairs, read_labelled
from deepssim.labelled.stored import scores_from_matrix
from deepssim.metric import load_metric
from deepssim.progress import Silent
from deepssim.reference import read_index, scoring, write_matrix
from deepssim.reference.embeddings import holds_embeddings, replacing_embeddings
from deepssim.reference.layout import one_part, split_layout
from deepssim.reference.scoring import Folders, ScoreOptions, score_embeddings, score_layout, score_stores
from deepssim.store import Store
from deepssim.store_build import build_store

REAL = [f"p{k}___training" for k in range(6)]
SYNTHETIC = [f"p{k}___gen-{n}" for k in range(6) for n in range(3)]


class Told(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def status(self, text: str) -> None:
        self.lines.append(text)


@pytest.fixture(scope="module")
def encoder():
    return Encoder(load_metric("pixel"), device="cpu", threads=1)


def scored(layout, encoder, out, **options):
    return score_layout(list_images(layout), encoder, Folders.under(out), ScoreOptions(**options))


def load(path: Path, key: str = "data") -> np.ndarray:
    with np.load(path, allow_pickle=False) as archive:
        return archive[key]


def fsum(a: np.ndarray, b: np.ndarray) -> np.float32:
    return np.float32(math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**31), st.booleans())
def test_a_block_holds_the_scores_that_the_search_defines(n, m, dim, seed, whole):
    rng = np.random.default_rng(seed)
    a, b = (
        rng.integers(-3, 4, (k, dim)).astype(np.float32) if whole else rng.standard_normal((k, dim)).astype(np.float32)
        for k in (n, m)
    )
    # Sums that nearly vanish are what rounding decides.
    a[0, : dim // 2] = 0
    expected = np.array([[fsum(x, y) for y in b] for x in a], np.float32)
    assert score_block(a, b).tobytes() == (expected + np.float32(0)).tobytes()


def test_scores_between_two_float32_are_decided_exactly():
    # 1 + 2^-24 lies half-way between 1 and the next float32; a last part decides, which float64 loses.
    parts = [1.0, 2.0**-24, 2.0**-70]
    a = np.array([parts, [*parts[:2], -parts[2]], [*parts[:2], 0]], np.float32)
    found = score_block(a, np.ones((1, 3), np.float32))[:, 0]
    assert found.tolist() == [float(fsum(row, np.ones(3))) for row in a]


def test_rows_that_have_no_score_are_refused():
    good = np.ones((1, 3), np.float32)
    for bad in (np.full((1, 3), np.nan, np.float32), np.ones((1, 3)), np.ones((1, 2), np.float32)):
        with pytest.raises(UsageError):
            score_block(good, bad)


def test_files_lie_where_the_reference_puts_them(layout, encoder, tmp_path):
    result = scored(layout, encoder, tmp_path)
    assert load(tmp_path / "indices" / "real.npz").tolist() == REAL
    assert load(tmp_path / "indices" / "synth.npz").tolist() == SYNTHETIC
    for part in ("real", "synth"):
        assert (tmp_path / "indices" / f"pixel.{part}.npz").read_bytes() == (
            tmp_path / "indices" / f"{part}.npz"
        ).read_bytes()
    matrix = load(tmp_path / "matrices" / "pixel.npz")
    assert (matrix.dtype, matrix.shape) == (np.float32, (6, 18))
    embeddings = {p.stem: load(p, "arr_0") for p in (tmp_path / "embeddings" / "pixel").iterdir()}
    assert sorted(embeddings) == sorted([*REAL, *SYNTHETIC])
    expected = [[fsum(embeddings[a], embeddings[b]) for b in SYNTHETIC] for a in REAL]
    np.testing.assert_array_equal(matrix, expected)
    images = {i: encoder.encode([encoder.prepare(pixels(layout, i))])[0] for i in (REAL[2], SYNTHETIC[5])}
    for name, row in images.items():
        np.testing.assert_allclose(embeddings[name], row, atol=1e-6)
    assert (result.n_real, result.n_synthetic, result.n_real_skipped, result.too_many_skipped) == (6, 18, 0, False)
    assert sorted(p.name for p in (tmp_path / "matrices").iterdir()) == [
        "pixel.json", "pixel.npz", "pixel.skipped.csv",
    ]  # fmt: skip
    assert all(p.stat().st_mode & 0o077 == 0 for p in tmp_path.rglob("*.npz"))


def pixels(layout: Path, name: str) -> np.ndarray:
    with Image.open(layout / f"{name.replace('___', '/')}.png") as image:
        return np.asarray(image, np.float32)


def test_float16_is_the_rounded_score(layout, encoder, tmp_path):
    scored(layout, encoder, tmp_path / "a")
    scored(layout, encoder, tmp_path / "b", float16=True, name="deepssim")
    full, half = load(tmp_path / "a/matrices/pixel.npz"), load(tmp_path / "b/matrices/deepssim.npz")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, full.astype(np.float16))


def test_memory_and_threads_change_nothing(layout, encoder, tmp_path):
    scored(layout, encoder, tmp_path / "a")
    with pytest.raises(MemoryLimitError) as raised:
        scored(layout, encoder, tmp_path / "b", memory_limit=1000)
    least = raised.value.minimum_bytes
    assert list((tmp_path / "b").rglob("*.npz")) == []
    scored(layout, encoder, tmp_path / "b", memory_limit=least, threads=2)
    for name in ("matrices/pixel.npz", "indices/real.npz", "embeddings/pixel/p3___gen-1.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_stores_give_the_same_as_the_images(layout, encoder, tmp_path):
    scored(layout, encoder, tmp_path / "a")
    stores = [
        build_store(one_part(list_images(layout), part), encoder, tmp_path / part, as_gallery=part == "real")
        for part in ("real", "synthetic")
    ]
    score_stores(stores[0], stores[1], Folders.under(tmp_path / "b"))
    for name in ("matrices/pixel.npz", "indices/pixel.synth.npz", "embeddings/pixel/p3___gen-1.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    # What an earlier run wrote, here of other real images, is not touched by one that cannot be.
    score_stores(stores[1], stores[0], Folders.under(tmp_path / "d"))
    before = {path: path.read_bytes() for path in (tmp_path / "d").rglob("*.npz")}
    with pytest.raises(MemoryLimitError):
        score_stores(stores[0], stores[1], Folders.under(tmp_path / "d"), ScoreOptions(memory_limit=1000))
    assert {path: path.read_bytes() for path in (tmp_path / "d").rglob("*.npz")} == before
    with pytest.raises(UsageError, match="perturb"):
        score_stores(stores[0], stores[1], Folders.under(tmp_path / "c"), ScoreOptions(perturb_seed=1))
    manifest = json.loads((tmp_path / "real/manifest.json").read_text())
    manifest["metric"]["hash"] = "0" * 64
    (tmp_path / "real/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(StoreError, match="one metric"):
        score_stores(Store(tmp_path / "real"), stores[1], Folders.under(tmp_path / "c"))


def test_embeddings_of_another_run_never_stay(layout, encoder, tmp_path):
    scored(layout, encoder, tmp_path / "out")
    fewer = shutil.copytree(layout, tmp_path / "fewer")
    shutil.rmtree(fewer / "p5")
    scored(fewer, encoder, tmp_path / "out")
    names = [p.stem for p in (tmp_path / "out/embeddings/pixel").iterdir()]
    assert sorted(names) == sorted(n for n in [*REAL, *SYNTHETIC] if not n.startswith("p5"))
    assert load(tmp_path / "out/matrices/pixel.npz").shape == (5, 15)


def test_names_that_cannot_be_are_refused_before_anything_is_embedded(layout, encoder, tmp_path, monkeypatch):
    odd = shutil.copytree(layout, tmp_path / "odd")
    (odd / "p1").rename(odd / "p___1")
    monkeypatch.setattr(scoring, "build_store", None)
    with pytest.raises(UsageError, match=r"4 images cannot be named.*p___1/training\.png"):
        scored(odd, encoder, tmp_path / "out")


def labelled_pairs(path: Path, names: list[str]) -> LabelledPairs:
    path.write_text("real_key,synth_key,label\n" + "".join(f"{n}___training,{n}___gen-0,1\n" for n in names))
    return read_labelled(path)


def test_a_matrix_is_never_read_with_the_indices_of_other_images(layout, encoder, tmp_path):
    out = tmp_path / "out"
    scored(layout, encoder, out, name="chen")
    # As many images, so that the shape fits; all rows but the last are other ones.
    others = shutil.copytree(layout, tmp_path / "others")
    (others / "p0").rename(others / "q0")
    scored(others, encoder, out, name="deepssim")
    pairs = labelled_pairs(tmp_path / "pairs.csv", ["p2", "p3"])
    matrix, indices = out / "matrices/chen.npz", out / "indices"
    with pytest.raises(UsageError, match=r"other real and synthetic images.*chen\.real\.npz"):
        scores_from_matrix(pairs, matrix, indices / "real.npz", indices / "synth.npz", "chen")
    own = indices / "chen.real.npz", indices / "chen.synth.npz"
    found = scores_from_matrix(pairs, matrix, *own, "chen").scores
    assert found.tolist() == [float(load(matrix)[k, SYNTHETIC.index(f"p{k}___gen-0")]) for k in (2, 3)]
    # A matrix that the reference has written since is not the one of the record.
    np.savez(matrix, data=load(matrix).astype(np.float16))
    scores_from_matrix(pairs, matrix, indices / "real.npz", indices / "synth.npz", "chen")


def test_a_kill_while_scores_are_written_leaves_no_matrix_beside_other_indices(layout, encoder, tmp_path, monkeypatch):
    scored(layout, encoder, tmp_path)
    fewer = shutil.copytree(layout, tmp_path / "images" / "fewer")
    shutil.rmtree(fewer / "p0")

    def killed(*args, **more):
        write_matrix(*args, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(scoring, "write_matrix", killed)
    with pytest.raises(KeyboardInterrupt):
        scored(fewer, encoder, tmp_path)
    rows = [len(read_index(tmp_path / f"indices/{name}.npz")) for name in ("real", "pixel.real")]
    assert rows == [5, 5]
    assert load(tmp_path / "matrices/pixel.npz").shape == (5, 15)


def test_a_folder_with_anything_else_is_not_replaced(layout, encoder, tmp_path):
    place = tmp_path / "embeddings" / "pixel"
    place.mkdir(parents=True)
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"):
        scored(layout, encoder, tmp_path)
    assert (place / "thesis.txt").read_text() == "mine"
    assert list(tmp_path.rglob("*.npz")) == []


def test_what_was_written_halfway_is_gone(tmp_path):
    def write_half():
        with replacing_embeddings(tmp_path / "e") as folder:
            (folder / "a___b.npz").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_goes_on(layout, encoder, tmp_path, monkeypatch):
    def kill(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(scoring, "write_matrix", kill)
        with pytest.raises(KeyboardInterrupt):
            scored(layout, encoder, tmp_path)
    assert not (tmp_path / "matrices/pixel.npz").exists()

    told = Told()
    score_layout(list_images(layout), encoder, Folders.under(tmp_path), progress=told)
    assert sum("reusing" in line for line in told.lines) == 2
    assert [p.name for p in (tmp_path / "matrices").iterdir() if p.name.startswith(".")] == []


def test_shared_indices_that_change_are_told(layout, encoder, tmp_path):
    told = Told()
    scored(layout, encoder, tmp_path, name="first")
    fewer = shutil.copytree(layout, tmp_path / "fewer")
    (fewer / "p2" / "gen-1.png").unlink()
    score_layout(list_images(fewer), encoder, Folders.under(tmp_path), ScoreOptions(name="second"), progress=told)
    (line,) = [line for line in told.lines if "synth.npz" in line]
    assert "first" in line
    assert len(load(tmp_path / "indices/first.synth.npz")) == 18
    assert len(load(tmp_path / "indices/second.synth.npz")) == len(load(tmp_path / "indices/synth.npz")) == 17


def test_images_that_cannot_be_used_are_listed_and_counted(layout, encoder, tmp_path):
    broken = shutil.copytree(layout, tmp_path / "broken")
    Image.fromarray(np.zeros((136, 112), np.uint8)).save(broken / "p1" / "gen-1.png")
    (broken / "p2" / "training.png").write_bytes(b"no image")
    result = scored(broken, encoder, tmp_path / "out")
    assert (result.n_real, result.n_synthetic) == (5, 17)
    assert (result.n_real_skipped, result.n_synthetic_skipped, result.too_many_skipped) == (1, 1, True)
    text = result.skipped.read_text()
    assert "p1/gen-1.png" in text
    assert "p2/training.png" in text
    assert "p2___training" not in load(result.real_index)
    assert not scored(broken, encoder, tmp_path / "out", max_skipped=0.5).too_many_skipped


def test_the_perturbed_condition_depends_on_the_image_and_the_seed_alone(layout, encoder, tmp_path):
    scored(layout, encoder, tmp_path / "plain")
    scored(layout, encoder, tmp_path / "a", perturb_seed=7)
    fewer = shutil.copytree(layout, tmp_path / "fewer")
    shutil.rmtree(fewer / "p0")
    scored(fewer, encoder, tmp_path / "b", perturb_seed=7)
    scored(layout, encoder, tmp_path / "c", perturb_seed=8)
    scored(layout, encoder, tmp_path / "d", perturb_seed=7, perturb_both=True)

    def embedding(run: str, name: str) -> np.ndarray:
        return load(tmp_path / run / "embeddings/pixel" / f"{name}.npz", "arr_0")

    np.testing.assert_allclose(embedding("a", "p3___gen-0"), embedding("b", "p3___gen-0"), atol=1e-6)
    assert not np.allclose(embedding("a", "p3___gen-0"), embedding("plain", "p3___gen-0"), atol=0.01)
    assert not np.allclose(embedding("a", "p3___gen-0"), embedding("c", "p3___gen-0"), atol=0.01)
    np.testing.assert_array_equal(embedding("a", "p3___training"), embedding("plain", "p3___training"))
    assert not np.allclose(embedding("d", "p3___training"), embedding("plain", "p3___training"), atol=0.01)


@pytest.mark.parametrize("is_centred", [False, True])
def test_embeddings_of_the_reference_are_scored_as_it_scores_them(tmp_path, is_centred):
    rng = np.random.default_rng(0)
    rows = {name: rng.standard_normal(32).astype(np.float32) * 5 + 1 for name in [*REAL, *SYNTHETIC]}
    (tmp_path / "e").mkdir()
    for name, row in rows.items():
        np.savez(tmp_path / "e" / f"{name}.npz", row)
    result = score_embeddings(
        tmp_path / "e", Folders.under(tmp_path / "out"), ScoreOptions(name="x"), is_centred=is_centred
    )
    assert load(result.real_index).tolist() == REAL
    real, synthetic = (np.stack([rows[n] for n in load(path)]) for path in (result.real_index, result.synthetic_index))
    if is_centred:
        expected = np.corrcoef(real, synthetic)[: len(real), len(real) :]
    else:
        expected = cosine_similarity(real, synthetic)
    np.testing.assert_allclose(load(result.matrix), expected, atol=1e-6)
    assert result.embeddings is None
    assert holds_embeddings(tmp_path / "e")


def test_embeddings_of_two_metrics_in_one_folder_are_refused(tmp_path):
    (tmp_path / "e").mkdir()
    for k, name in enumerate(["a___training", "a___gen-0"]):
        np.savez(tmp_path / "e" / f"{name}.npz", np.ones(3 + k))
    with pytest.raises(UsageError, match="several metrics"):
        score_embeddings(tmp_path / "e", Folders.under(tmp_path / "out"), ScoreOptions(name="x"))
    (tmp_path / "e/a___gen-0.npz").unlink()
    with pytest.raises(UsageError, match="both"):
        score_embeddings(tmp_path / "e", Folders.under(tmp_path / "out"), ScoreOptions(name="x"))
    with pytest.raises(UsageError, match="name"):
        score_embeddings(tmp_path / "e", Folders.under(tmp_path / "out"), ScoreOptions())


def test_an_image_called_training_is_real_and_nothing_else(tmp_path):
    for name in ("p1/training", "p1/pretraining", "p1/training-2", "p2/gen-0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / f"{name}.npy", np.eye(8))
    real, synthetic = split_layout(list_images(tmp_path))
    assert [f.path for f in real.files] == ["p1/training.npy"]
    assert len(synthetic.files) == 3
    with pytest.raises(UsageError, match="training"):
        split_layout(list_images(tmp_path / "p2"))


def test_folders_among_the_images_are_refused(layout, encoder):
    with pytest.raises(UsageError, match="outside"):
        scored(layout, encoder, layout / "out")
    assert not (layout / "out").exists()


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "x" * 200, "a b"])
def test_names_that_lead_elsewhere_are_refused(layout, encoder, tmp_path, name):
    with pytest.raises(UsageError, match="name"):
        scored(layout, encoder, tmp_path, name=name)


def test_one_name_for_a_real_and_a_synthetic_image_needs_no_embeddings(encoder, tmp_path):
    rng = np.random.default_rng(0)
    stores = []
    for part in ("a", "b"):
        folder = tmp_path / part / "images"
        folder.mkdir(parents=True)
        for k in range(3):
            Image.fromarray(rng.integers(0, 256, (40, 40), dtype=np.uint8)).save(folder / f"{k}.png")
        stores.append(build_store(list_images(folder), encoder, tmp_path / f"{part}.store"))
    with pytest.raises(UsageError, match="images___0"):
        score_stores(stores[0], stores[1], Folders.under(tmp_path / "out"))
    score_stores(stores[0], stores[1], Folders.under(tmp_path / "out"), ScoreOptions(with_embeddings=False))
    assert load(tmp_path / "out/matrices/pixel.npz").shape == (3, 3)
