"""Training on phantoms: it learns, goes on after a kill to the same bits, and says what is wrong."""

from __future__ import annotations

import csv
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")

from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.image_ops import ssim  # noqa: E402
from deepssim.models.checkpoint import load_encoder  # noqa: E402
from deepssim.perturb import degrade, near_copy  # noqa: E402
from deepssim.phantom import make_cohort  # noqa: E402
from deepssim.train import loop, recipes  # noqa: E402
from deepssim.train.anchors import make_anchors  # noqa: E402
from deepssim.train.augment import Augmentation  # noqa: E402
from deepssim.train.recipes import Recipe  # noqa: E402
from deepssim.train.run import TrainOptions, train  # noqa: E402
from deepssim.train.validation import RetrievalValidation  # noqa: E402

MILD = Augmentation(affine=0.5, angle_rad=0.05, shift=0.02, gamma_probability=0.5, gamma=(0.8, 1.25))
TINY = Recipe(
    "tiny", "lite", (34, 28), MILD, {"widths": (12, 16, 32), "depths": (1, 1), "hidden": 64},
    steps=60, batch_size=40, learning_rate=4e-3, is_cosine=True, warm_up=0.05, even_bins=True, contrast=0.02,
    average=0.9, dropout=0.1,
)  # fmt: skip


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny", TINY)
    pairs = replace(TINY, name="tiny-pairs", steps=0, epochs=2, batch_size=8, augmentation=Augmentation(flip=0.3))
    monkeypatch.setitem(recipes.RECIPES, "tiny-pairs", pairs)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        # The worker of this small machine's loader is forked from a process that has threads.
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("people")
    for person, number, image in make_cohort(14, 3, seed=2):
        path = root / f"p{person}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
    return root


def options(people: Path, out: Path, **changes: object) -> TrainOptions:
    base = {"recipe": "tiny", "images": people, "out": out, "group_by": "parent", "dim": 32, "device": "cpu",
            "workers": 0, "validate_every": 20, "save_every": 10, "valid_part": 0.3}  # fmt: skip
    return TrainOptions(**{**base, **changes})  # type: ignore[arg-type]


def weights(folder: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return load_encoder(folder / f"{name}.safetensors")[0].state_dict()


def log(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def test_it_learns(people, tmp_path):
    result = train(options(people, tmp_path / "run", steps=150, validate_every=50))
    encoder, description = load_encoder(result.folder / "best.safetensors")
    cohort = [(f"{person}-{number}", f"p{person}", image) for person, number, image in make_cohort(8, 2, seed=77)]
    others = RetrievalValidation.of(make_anchors(cohort, (34, 28)), None, (34, 28), view="aligned")
    constant = float(np.abs(others.target - np.median(others.target)).mean())
    figures = others.measure(encoder, torch.device("cpu"))
    assert figures["mae"] < 0.75 * constant
    assert figures["exact_in_1"] > 0.9
    assert [line["step"] for line in log(result.folder)] == [50, 100, 150]
    assert log(result.folder)[-1]["loss"] < log(result.folder)[0]["loss"]
    for name in ("curves.png", "predictions.png"):
        with Image.open(result.folder / name) as picture:
            assert picture.width > 600
    assert (description.height, description.width) == (34, 28)
    assert description.training["figures"]["mae"] == result.best["mae"]
    rows = encoder(torch.rand(3, 1, 34, 28) * 4000)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))


def test_a_killed_run_goes_on_to_the_same_bits(people, tmp_path, monkeypatch):
    whole = train(options(people, tmp_path / "whole", steps=40)).folder
    update = loop._State.after_update

    def killed(state):
        if state.step == 27:
            raise KeyboardInterrupt
        update(state)

    with monkeypatch.context() as patched:
        patched.setattr(loop._State, "after_update", killed)
        with pytest.raises(KeyboardInterrupt):
            train(options(people, tmp_path / "cut", steps=40))
    cut = train(options(people, tmp_path / "cut", steps=40, save_every=7)).folder
    assert log(cut) == log(whole)
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(cut)[name]), name


def test_another_run_in_the_folder_is_refused(people, tmp_path):
    train(options(people, tmp_path / "run", steps=4, validate_every=4))
    with pytest.raises(UsageError, match=r"other settings .*seed"):
        train(options(people, tmp_path / "run", steps=4, validate_every=4, seed=1))


def test_training_ends_when_nothing_gets_better(people, tmp_path, monkeypatch):
    monkeypatch.setattr("deepssim.train.validation.RetrievalValidation.measure",
                        lambda *_: {"mae": 0.5, "selection": 1.0})  # fmt: skip
    result = train(options(people, tmp_path / "run", steps=60, validate_every=2, patience=3))
    assert [line["step"] for line in log(result.folder)] == [2, 4, 6, 8]
    assert result.best["step"] == 2


def write_pairs(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = []
    for person, (_, number, image) in enumerate(make_cohort(10, 1, seed=4)):
        made = {"training": image, "gen-0": degrade(image, rng), "gen-1": near_copy(image, rng)}
        for name, pixels in made.items():
            path = folder / f"u{person}" / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.rint(pixels * 255).astype(np.uint8)).save(path)
        for name in ("gen-0", "gen-1"):
            value = ssim(image, made[name], data_range=None, with_z_score=True)
            split = "valid" if person >= 7 else "train"
            lines.append([f"u{person}___training", f"u{person}___{name}", f"{value:.6f}", split, number])
    path = folder / "pairs.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["real_key", "synth_key", "ssim", "split", "more"], *lines])
    return path


def test_a_list_of_pairs_trains_as_published(tmp_path):
    pairs = write_pairs(tmp_path / "data")
    asked = options(tmp_path / "data", tmp_path / "run", recipe="tiny-pairs", pairs=pairs, validate_every=1)
    result = train(asked)
    assert {"mae", "partner_in_1", "partner_in_8"} <= set(result.best)
    assert [line["step"] for line in log(result.folder)] == [1, 2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("ssim", "score", "no column ssim"),
        ("u0___training", "../../u0___training", "leads out"),
        (",train,", ",test,", "split is test"),
        ("u0___gen-0", "u0___gen-9", "has no u0/gen-9.png"),
        (",valid,", ",train,", "no pairs of the split valid"),
    ],
)
def test_a_bad_list_of_pairs_is_named(old, new, message, tmp_path):
    pairs = write_pairs(tmp_path / "data")
    pairs.write_text(pairs.read_text().replace(old, new))
    with pytest.raises(UsageError, match=message):
        train(options(tmp_path / "data", tmp_path / "run", recipe="tiny-pairs", pairs=pairs))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "no"}, "unknown recipe"),
        ({"recipe": "tiny-pairs"}, "--dataset-csv"),
        ({"batch_size": 30}, "multiple of 20"),
        ({"group_by": "none"}, "known person"),
        ({"valid_part": 0.01}, "two of each"),
        ({"device": "tpu"}, "device"),
        ({"weights": "imagenet"}, "starts from nothing"),
    ],
)
def test_what_cannot_be_is_said(changes, message, people, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(options(people, tmp_path / "run", **changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error(people, tmp_path):
    with pytest.raises(UsageError, match="no CUDA device"):
        train(options(people, tmp_path / "run", device="cuda"))


def test_a_damaged_checkpoint_is_named(people, tmp_path):
    folder = train(options(people, tmp_path / "run", steps=4, validate_every=4)).folder
    path = folder / "best.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(MetricError, match="cannot be read"):
        load_encoder(path)
    with pytest.raises(MetricError, match="cannot be read"):
        load_encoder(tmp_path / "none.safetensors")
