"""Training on phantoms: it learns, goes on after a kill to the same bits, and says what is wrong."""

from __future__ import annotations

import csv
import json
import shutil
import stat
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

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
from deepssim.train.checks import MOST_SEED  # noqa: E402
from deepssim.train.options import TrainOptions  # noqa: E402
from deepssim.train.pair_source import PairSource, PairValidation, read_pairs  # noqa: E402
from deepssim.train.recipes import Recipe  # noqa: E402
from deepssim.train.run import train  # noqa: E402
from deepssim.train.trackers import private_settings, start_trackers  # noqa: E402
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
        if state.step == 33:  # the state is of step 30, the last look at 20
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


def test_a_state_of_another_version_is_refused(people, tmp_path):
    asked = options(people, tmp_path / "run", steps=4, validate_every=4)
    train(asked)
    torch.save({"step": 4, "encoder": {}}, tmp_path / "run" / "state.pt")
    with pytest.raises(UsageError, match=r"state\.pt is the state of a run of another version: remove .*run to start"):
        train(asked)


def test_a_folder_is_the_same_by_any_path(people, tmp_path, monkeypatch):
    train(options(people, tmp_path / "run", steps=4, validate_every=4))
    monkeypatch.chdir(people.parent)
    relative = options(Path(people.name), tmp_path / "run", steps=4, validate_every=4)
    assert train(relative).best["step"] == 4


def test_a_command_that_failed_does_not_bar_its_correction(people, tmp_path):
    with pytest.raises(UsageError, match="known person"):
        train(options(people, tmp_path / "run", steps=4, group_by="none"))
    assert not (tmp_path / "run" / "run.json").exists()
    # Nor does one that was killed before it had anything to go on from.
    (tmp_path / "run" / "run.json").write_text('{"encoder": {}, "asked": {"seed": 9}}')
    train(options(people, tmp_path / "run", steps=4, validate_every=4))
    assert json.loads((tmp_path / "run" / "run.json").read_text())["asked"]["seed"] == 0


def test_files_are_private_and_those_of_killed_runs_are_removed(people, tmp_path):
    (tmp_path / "run").mkdir()
    names = ("state.pt", "best.safetensors", "metrics.jsonl", "curves.png", "run.json")
    left = [tmp_path / "run" / f".{name}.0123456789ab.partial" for name in names]
    for path in left:
        path.write_text("half")
    train(options(people, tmp_path / "run", steps=4, validate_every=2))
    assert not any(path.exists() for path in left)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "run").iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_looks_before_the_first_state_are_not_logged_twice(people, tmp_path, monkeypatch):
    def killed(_):
        raise KeyboardInterrupt

    asked = options(people, tmp_path / "run", steps=6, validate_every=2, save_every=4)
    with monkeypatch.context() as patched:
        patched.setattr(loop._State, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(asked)
    assert [line["step"] for line in log(tmp_path / "run")] == [2, 4]
    assert [line["step"] for line in log(train(asked).folder)] == [2, 4, 6]


def test_a_loss_that_is_no_number_ends_the_run(people, tmp_path):
    with pytest.raises(UsageError, match=r"diverged at step \d+: .* --learning-rate below 1e\+30"):
        train(options(people, tmp_path / "run", steps=20, learning_rate=1e30))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    # Nothing was learned that is worth another folder.
    train(options(people, tmp_path / "run", steps=4, learning_rate=1e-3))


def test_figures_that_are_no_numbers_end_the_run_unlogged(people, tmp_path, monkeypatch):
    monkeypatch.setattr("deepssim.train.validation.RetrievalValidation.measure",
                        lambda *_: {"mae": float("nan"), "selection": 0.1})  # fmt: skip
    with pytest.raises(UsageError, match="--learning-rate"):
        train(options(people, tmp_path / "run", steps=4, validate_every=2))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_what_is_dropped_is_a_function_of_seed_step_and_process(people, tmp_path):
    drawn = []
    for seed, step, process in [(0, 3, 0), (0, 3, 0), (0, 4, 0), (1, 3, 0), (0, 3, 1)]:
        state = object.__new__(loop._State)
        state.seed, state.step, state._batch = seed, step, 0
        state.accelerator = SimpleNamespace(process_index=process, device=torch.device("cpu"))
        with torch.random.fork_rng([]):
            views = state.begin_batch()
            drawn.append((float(torch.rand(())), float(torch.rand((), generator=views))))
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) == 4


def test_training_leaves_the_random_state_as_it_was(people, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train(options(people, tmp_path / "run", steps=4, validate_every=4))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_rate_of_the_head_is_logged(tmp_path, monkeypatch):
    monkeypatch.setitem(recipes.RECIPES, "tiny-pairs", replace(recipes.RECIPES["tiny-pairs"], is_cosine=False))
    monkeypatch.setattr("deepssim.train.run._prepare", lambda encoder, *_: [
        {"params": list(encoder.head.parameters()), "lr": 1e-3},
        {"params": list(encoder.stem.parameters()), "lr": 1e-5},
    ])  # fmt: skip
    pairs = write_pairs(tmp_path / "data")
    folder = train(listed(pairs, tmp_path / "run", validate_every=1)).folder
    assert [line["learning_rate"] for line in log(folder)] == pytest.approx([1e-3] * 2)


def test_training_ends_when_nothing_gets_better(people, tmp_path, monkeypatch):
    monkeypatch.setattr("deepssim.train.validation.RetrievalValidation.measure",
                        lambda *_: {"mae": 0.5, "selection": 1.0})  # fmt: skip
    result = train(options(people, tmp_path / "run", steps=60, validate_every=2, patience=3))
    assert [line["step"] for line in log(result.folder)] == [2, 4, 6, 8]
    assert result.best["step"] == 2


def listed(pairs: Path, out: Path, **changes: object) -> TrainOptions:
    return options(
        pairs.parent, out, **{"recipe": "tiny-pairs", "pairs": pairs, "group_by": None, "valid_part": None, **changes}
    )


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
    result = train(listed(pairs, tmp_path / "run", validate_every=1))
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
        train(listed(pairs, tmp_path / "run"))


def test_an_image_that_is_missing_anywhere_is_found_at_the_start(tmp_path):
    pairs = write_pairs(tmp_path / "data")
    for person in (5, 6):
        (tmp_path / "data" / f"u{person}" / "gen-1.png").unlink()
    with pytest.raises(UsageError, match=r"has no u5/gen-1\.png, .* as u5___gen-1 \(2 of 30 images are missing\)"):
        read_pairs(pairs, tmp_path / "data")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_read_is_named_with_its_list(workers, tmp_path):
    pairs = write_pairs(tmp_path / "data")
    (tmp_path / "data" / "u2" / "gen-1.png").write_bytes(b"no picture")
    lists = read_pairs(pairs, tmp_path / "data")
    message = r"data/u2/gen-1\.png, which .*pairs\.csv names as u2___gen-1, cannot be read \("
    with pytest.raises(UsageError, match=message) as caught:
        list(PairSource(lists["train"], (34, 28), 8, 0, 2, workers).steps(0))
    assert "\n" not in str(caught.value)


def test_a_list_that_changed_is_another_run(tmp_path):
    pairs = write_pairs(tmp_path / "data")
    train(listed(pairs, tmp_path / "run"))
    lines = pairs.read_text().splitlines(keepends=True)
    pairs.write_text("".join(lines[:-1]))
    with pytest.raises(UsageError, match=r"other settings \(pairs_sha256\)"):
        train(listed(pairs, tmp_path / "run"))


def test_pairs_that_select_are_kept_as_bytes_and_not_found_by_what_diverged(tmp_path):
    lists = read_pairs(write_pairs(tmp_path / "data"), tmp_path / "data")
    validation = PairValidation(lists["valid"], (34, 28))
    assert {images.dtype for images in validation._images} == {torch.uint8}

    class Broken(torch.nn.Module):
        def forward(self, images):
            return torch.full((len(images), 4), float("nan"))

    figures = validation.measure(Broken(), torch.device("cpu"))
    assert {value for name, value in figures.items() if "_in_" in name} == {0.0}


def test_a_bad_list_is_said_before_weights_are_downloaded(tmp_path, monkeypatch):
    pairs = write_pairs(tmp_path / "data")
    pairs.write_text(pairs.read_text().replace("u0___gen-0", "u0___gen-9"))
    monkeypatch.setattr("deepssim.models.convnext.load_imagenet", lambda *_: pytest.fail("asked for weights first"))
    with pytest.raises(UsageError, match=r"has no u0/gen-9\.png"):
        train(listed(pairs, tmp_path / "run", recipe="deepssim++", size=(32, 32)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 5}, "--steps .* give --epochs"),
        ({"validation_images": Path("data")}, "--validation-images-dir is for partners"),
        ({"group_by": "parent"}, "--group-by is for partners"),
        ({"valid_part": 0.2}, "--valid-part is for partners"),
        ({"recipe": "tiny"}, "give --epochs"),
        ({"recipe": "deepssim++", "size": (34, 28)}, r"--size 34x28 .* 32x32 is the smallest"),
        ({"recipe": "deepssim", "size": (28, 64)}, r"32x32 is the smallest"),
    ],
)
def test_what_a_list_has_no_use_for_is_said(changes, message, tmp_path):
    pairs = write_pairs(tmp_path / "data")
    with pytest.raises(UsageError, match=message):
        train(listed(pairs, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "no"}, "unknown recipe"),
        ({"recipe": "tiny-pairs"}, "--dataset-csv"),
        ({"batch_size": 30}, "multiple of 20"),
        ({"epochs": 3}, "--epochs .* --steps instead"),
        ({"size": (4, 4)}, "--size 4x4 .* 7x7 is the smallest"),
        ({"seed": 99999999999999999}, f"--seed .* 0 to {MOST_SEED}"),
        ({"seed": -1}, "--seed is -1"),
        ({"group_by": "none"}, "known person"),
        ({"valid_part": 0.01}, "two of each .* --valid-part.* --validation-images-dir"),
        ({"validation_images": Path("other")}, "leave it or --validation-images-dir out"),
        ({"device": "tpu"}, "device"),
        ({"weights": "imagenet"}, "no ImageNet weights"),
        ({"recipe": "lite-refine"}, "goes on from an encoder: give --weights"),
    ],
)
def test_what_cannot_be_is_said(changes, message, people, tmp_path):
    with pytest.raises(UsageError, match=message):
        train(options(people, tmp_path / "run", **changes))


def test_people_who_select_must_not_be_trained_on(people, tmp_path):
    with pytest.raises(UsageError, match="is the folder that is trained on"):
        train(options(people, tmp_path / "run", valid_part=None, validation_images=people / ".." / people.name))
    other = tmp_path / "other"
    names = sorted(path.name for path in people.iterdir())
    shutil.copytree(people / names[0], other / names[0])
    for _, number, image in make_cohort(2, 2, seed=50):
        path = other / "someone" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
    with pytest.raises(UsageError, match=f"1 people are both trained on and .*'{names[0]}'.*rename"):
        train(options(people, tmp_path / "run", valid_part=None, validation_images=other))
    (other / names[0]).rename(other / "renamed")
    with pytest.raises(UsageError, match=f"3 images are both trained on .*'{names[0]}/.* = renamed/"):
        train(options(people, tmp_path / "run", valid_part=None, validation_images=other))
    shutil.rmtree(other / "renamed")
    shutil.copytree(other / "someone", other / "another")
    made = train(options(people, tmp_path / "run", valid_part=None, validation_images=other, steps=2))
    assert made.best["step"] == 2


class NewSettings:
    console: str
    disable_git: bool
    x_disable_meta: bool
    x_save_requirements: bool


class OldSettings:
    console: str
    _disable_meta: bool


class LaterSettings(NewSettings):
    host: str


def test_what_wandb_gathers_on_its_own_is_off():
    assert private_settings(OldSettings) == {"console": "off", "_disable_meta": True}
    assert private_settings(LaterSettings) == {
        "console": "off", "disable_git": True, "x_disable_meta": True, "x_save_requirements": False, "host": "",
    }  # fmt: skip
    with pytest.raises(UsageError, match="cannot be kept from sending"):
        private_settings(int)


def test_wandb_gets_names_alone(people, tmp_path, monkeypatch):
    asked = {}
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Settings=type("S", (dict,), NewSettings.__dict__ | {})))
    accelerator = SimpleNamespace(init_trackers=lambda *given: asked.update(given=given))
    start_trackers(accelerator, options(people, tmp_path / "run", wandb="online", name="mine", seed=3))
    project, config, settings = asked["given"]
    assert (project, config) == ("deepssim", {"recipe": "tiny", "seed": 3})
    assert settings["wandb"]["name"] == "mine"
    assert settings["wandb"]["settings"]["console"] == "off"
    assert str(people) not in str(asked)


def test_options_that_contradict_each_other_are_one_line(people, deepssim):
    base = ("train", "encoder", "--dataset-images-dir", people, "--exp-name", "x")
    done = deepssim(*base, "--use-gpu", "--device", "cpu")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: --use-gpu and --device cpu")
    done = deepssim(*base, "--seed", 99999999999999999)
    assert done.returncode == 2
    assert "not in the range 0<=x<=2147483647" in done.stderr


def test_the_help_shows_the_defaults_of_the_recipes():
    from deepssim.cli import _train_options as shared
    from deepssim.cli import train as command

    assert shared.MOST_SEED == MOST_SEED
    assert set(command.RECIPES) == set(recipes.RECIPES) - {"tiny", "tiny-pairs"}
    published = {name: recipes.RECIPES[name] for name in command.RECIPES}
    helps = {option.name: option.help for option in command.encoder.params}
    for name in ("batch_size", "learning_rate", "weight_decay", "dropout"):
        base, better, lite, refined = (getattr(recipe, name) for recipe in published.values())
        shown = (
            f"[default: {base:g}" + f", deepssim++ {better:g}" * (better != base) + f", lite {lite:g}" * (lite != base)
        )
        shown += f", lite-refine {refined:g}" * (refined != lite) + "]"
        assert shown in helps[name], name
    assert "multiple of 20" in helps["batch_size"]


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


def test_a_run_goes_on_from_the_weights_of_another(people, tmp_path):
    first = train(options(people, tmp_path / "first", steps=2))
    start = str(first.folder / "last.safetensors")
    next_one = train(options(people, tmp_path / "next", steps=1, weights=start, learning_rate=1e-12))
    before, after = (load_encoder(run.folder / "last.safetensors")[0] for run in (first, next_one))
    for name, value in before.named_parameters():
        torch.testing.assert_close(after.get_parameter(name), value, rtol=0, atol=1e-6)
    with pytest.raises(MetricError, match="another network or size"):
        train(options(people, tmp_path / "other", dim=8, weights=start))
    with pytest.raises(UsageError, match="cannot be read"):
        train(options(people, tmp_path / "none", weights=str(tmp_path / "no.safetensors")))
