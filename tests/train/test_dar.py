"""The metric dar: its network is that of the checkpoints, its training learns, goes on after a kill, and refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist

torch = pytest.importorskip("torch")
pytest.importorskip("accelerate")
torchvision = pytest.importorskip("torchvision")

from deepssim.calibration import Calibration  # noqa: E402
from deepssim.errors import MetricError, UsageError  # noqa: E402
from deepssim.models.checkpoint import Description, build_network, load_encoder, save_network  # noqa: E402
from deepssim.models.dar import Dar, describe_dar, load_dar, load_start  # noqa: E402
from deepssim.phantom import make_cohort  # noqa: E402
from deepssim.train import dar as room  # noqa: E402
from deepssim.train import loop  # noqa: E402
from deepssim.train.augment import DAR, augment  # noqa: E402
from deepssim.train.contrast import ImageSource  # noqa: E402
from deepssim.train.dar import DarOptions, train_dar  # noqa: E402
from deepssim.train.loss import nt_xent  # noqa: E402
from deepssim.train.nearest import nearest_threshold  # noqa: E402
from deepssim.train.people import read_people  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


class Published(torch.nn.Module):
    """The network of published checkpoints, from torchvision's parts alone."""

    def __init__(self) -> None:
        super().__init__()
        self.model = torchvision.models.resnet50(weights=None)
        self.model.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
        self.model.fc = torch.nn.Linear(2048, 128)
        self.fc_end = torch.nn.Linear(128, 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    with torch.random.fork_rng([]):
        torch.manual_seed(3)
        network = Published()
        with torch.no_grad():
            for _ in range(2):  # so that the means of the norms are not all zero
                network.model(torch.rand(4, 1, 40, 36))
    path = tmp_path_factory.mktemp("published") / "model_best"
    torch.save(network.state_dict(), path)
    return network.eval(), path


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("people")
    for person, number, image in make_cohort(10, 2, seed=2):
        path = root / f"p{person}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((image * 255).astype(np.uint8)).save(path)
    return root


def options(people: Path, out: Path, **changes: object) -> DarOptions:
    base = {"images": people, "out": out, "group_by": "parent", "device": "cpu", "valid_part": 0.3, "size": (32, 32),
            "batch_size": 4, "steps": 3, "validate_every": 3, "save_every": 2, "seed": 4}  # fmt: skip
    return DarOptions(**{**base, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(people, tmp_path_factory):
    torch.set_num_threads(1)
    asked = options(people, tmp_path_factory.mktemp("runs") / "whole")
    return asked, train_dar(asked)


def images(n: int, height: int = 40, width: int = 36) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 4096, (n, 1, height, width)).astype(np.float32))


@pytest.mark.parametrize("reference_axes", [False, True])
def test_inner_products_are_the_correlations_of_a_published_network(reference_axes, published):
    network, path = published
    encoder, description = load_dar(path, (40, 36), reference_axes=reference_axes)
    raw = images(5)
    scaled = (raw - raw.amin((1, 2, 3), keepdim=True)) / (raw.amax((1, 2, 3)) - raw.amin((1, 2, 3)))[
        :, None, None, None
    ]
    with torch.no_grad():
        theirs = network.model(scaled.transpose(2, 3) if reference_axes else scaled).numpy()
        rows = encoder(raw).numpy()
    theirs /= np.linalg.norm(theirs, axis=1, keepdims=True)
    np.testing.assert_allclose(rows @ rows.T, 1 - cdist(theirs, theirs, "correlation"), atol=1e-5)
    assert (description.similarity, description.height, description.width) == ("correlation", 40, 36)
    assert encoder.reference_axes is reference_axes


def test_images_reach_the_network_as_the_reference_feeds_them(data_folder):
    path = data_folder.parent / "golden" / "preprocess.npz"
    if not path.is_file():
        pytest.skip("golden/preprocess.npz is not beside the images")
    encoder = Dar(reference_axes=True)
    fed = []
    encoder.model = torch.nn.Sequential(Watch(fed))
    with np.load(path) as golden:
        for i in range(4):
            with Image.open(data_folder / str(golden[f"path_{i}"])) as image:
                pixels = np.asarray(image.convert("L"), np.float32)
            encoder(torch.from_numpy(pixels)[None, None])
            assert np.array_equal(fed[-1][0], golden[f"dar_{i}"]), i


class Watch(torch.nn.Module):
    def __init__(self, fed: list) -> None:
        super().__init__()
        self.fed = fed

    def forward(self, greys):
        self.fed.append(greys.numpy())
        return torch.zeros(len(greys), 3)


def test_a_constant_image_has_an_embedding(published):
    encoder, _ = load_dar(published[1], (40, 36))
    with torch.no_grad():
        row = encoder(torch.full((1, 1, 40, 36), 77.0))
    assert torch.isfinite(row).all()


def test_the_rest_of_a_batch_does_not_change_an_embedding(published):
    encoder, _ = load_dar(published[1], (40, 36))
    raw = images(6)
    with torch.no_grad():
        together = encoder(raw)
        for i in range(6):
            torch.testing.assert_close(encoder(raw[i : i + 1])[0], together[i], rtol=0, atol=1e-5)
        encoder.train()  # as it never may be: what else is in the batch decides
        assert (encoder(raw)[0] - encoder(raw[:2])[0]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("made", "size", "message"),
    [
        (lambda p, t: torch.save({"model.fc.weight": torch.zeros(128, 2048)}, t), (40, 36), "weights are missing"),
        (lambda p, t: torch.save({"layer.weight": torch.zeros(3)}, t), (40, 36), "weights are named layer.weight"),
        (lambda p, t: torch.save({"model.conv1.weight": torch.zeros(3)}, t), (40, 36), "model.fc.weight is missing"),
        (lambda p, t: torch.save([1], t), (40, 36), "no state dict: give a state dict of the network of Dar"),
        (lambda p, t: t.write_bytes(p.read_bytes()[:5000]), (40, 36), "damaged, or holds something else"),
        (lambda p, t: None, (40, 36), "cannot be read as weights: No such file"),
        (lambda p, t: t.write_bytes(p.read_bytes()), None, "rows and columns with --size"),
        (lambda p, t: t.write_bytes(p.read_bytes()), (0, 36), "no encoder takes images of 0 x 36"),
    ],
)
def test_a_file_that_is_no_such_network_is_named(made, size, message, published, tmp_path):
    made(published[1], tmp_path / "x.pth")
    with pytest.raises((MetricError, UsageError), match=message) as caught:
        load_dar(tmp_path / "x.pth", size)
    assert "\n" not in str(caught.value)


def test_a_torchscript_archive_is_read_as_weights_and_not_executed(published, scripted, tmp_path):
    network, path = published
    archive = scripted(network, tmp_path / "dar.pth")
    # Warnings are errors: torch.load would warn that it hands the file to torch.jit.load.
    found, expected = (load_dar(one, (40, 36))[0].state_dict() for one in (archive, path))
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_checkpoint_of_ours_is_loaded_as_it_was_trained(trained, tmp_path):
    path = trained[1].folder / "best.safetensors"
    encoder, description = load_dar(path)
    assert (description.architecture, description.height, description.width) == ("dar", 32, 32)
    assert not encoder.training
    assert load_dar(path, (48, 40))[1].height == 48
    with pytest.raises(UsageError, match="trained on images as they are"):
        load_dar(path, reference_axes=True)
    lite = Description("lite", {"dim": 8, "widths": [8, 8], "depths": [0]}, 34, 28)
    save_network(tmp_path / "lite.safetensors", build_network(lite).state_dict(), lite)
    with pytest.raises(MetricError, match="architecture lite, not dar"):
        load_dar(tmp_path / "lite.safetensors")


def test_training_starts_from_imagenet_but_for_the_first_and_the_last_layer(tmp_path):
    imagenet = torchvision.models.resnet50(weights=None).state_dict()
    older = {name: tensor for name, tensor in imagenet.items() if not name.endswith("num_batches_tracked")}
    torch.save(older, tmp_path / "resnet50.pth")
    encoder = Dar()
    before = {name: tensor.clone() for name, tensor in encoder.model.state_dict().items()}
    load_start(encoder, str(tmp_path / "resnet50.pth"))
    for name, tensor in encoder.model.state_dict().items():
        is_own = name.startswith(("conv1.", "fc."))
        assert torch.equal(tensor, before[name] if is_own else imagenet[name]), name
    del older["layer1.0.conv1.weight"]
    torch.save(older, tmp_path / "less.pth")
    with pytest.raises(MetricError, match=r"missing, the first is layer1\.0\.conv1\.weight"):
        load_start(encoder, str(tmp_path / "less.pth"))


def test_training_goes_on_from_a_network_of_the_same_kind(published, trained):
    encoder = Dar()
    load_start(encoder, str(published[1]))
    assert torch.equal(encoder.model.fc.weight, published[0].model.fc.weight)
    load_start(encoder, str(trained[1].folder / "best.safetensors"))
    assert not torch.equal(encoder.model.fc.weight, published[0].model.fc.weight)


def test_weights_that_cannot_be_downloaded_are_asked_for(monkeypatch):
    def fail(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(type(torchvision.models.ResNet50_Weights.IMAGENET1K_V1), "get_state_dict", fail)
    with pytest.raises(UsageError, match=r"--weights PATH \(https://.*resnet50.*or --weights none"):
        load_start(Dar(), "imagenet")


def test_nt_xent_is_its_definition():
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(2, 5, 7))
    rows = np.concatenate([first, second])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    losses = []
    for i in range(10):
        scores = np.exp(rows @ rows[i] / 0.07)
        losses.append(-math.log(scores[(i + 5) % 10] / (scores.sum() - scores[i])))
    found = nt_xent(torch.from_numpy(first).float(), torch.from_numpy(second).float(), 0.07)
    assert float(found) == pytest.approx(np.mean(losses), rel=1e-5)


def test_views_are_the_published_ones():
    torch.manual_seed(0)
    image = torch.zeros(1, 1, 64, 64)
    image[0, 0, 8:16, 8:24] = 1.0  # in the upper left corner
    views = augment(image.expand(200, -1, -1, -1), DAR, torch.Generator().manual_seed(1))
    rows, columns = (views[:, 0].sum(3 - axis) for axis in (1, 2))
    assert (rows[:, :32].sum(1) > rows[:, 32:].sum(1)).all()  # never upside down
    is_flipped = columns[:, 32:].sum(1) > columns[:, :32].sum(1)
    assert 70 < int(is_flipped.sum()) < 130
    is_as_it_was = ((views - image).abs().amax((1, 2, 3)) < 1e-4) | (
        (views - image.flip(3)).abs().amax((1, 2, 3)) < 1e-4
    )
    assert 70 < int(is_as_it_was.sum()) < 130


def test_an_epoch_sees_each_image_once_and_a_step_is_the_same_whenever_it_is_asked_for():
    pixels = np.arange(10, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    source = ImageSource(pixels, 5, 0, 6)
    batches = [(batch[:, 0, 0, 0] * 255).round().int().tolist() for batch in source.steps(0)]
    assert len(batches) == 6
    assert sorted(batches[0] + batches[1]) == list(range(10))
    assert batches[0] != batches[2]
    assert torch.equal(next(source.steps(3)), list(source.steps(0))[3])


def test_the_threshold_is_the_percentile_of_the_nearest():
    rng = np.random.default_rng(2)
    training, validation = (rng.normal(size=(n, 6)) for n in (50, 20))
    centred = []
    for rows in (training, validation):
        rows = rows - rows.mean(1, keepdims=True)  # noqa: PLW2901
        centred.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    nearest, threshold = nearest_threshold(*centred)
    distances = cdist(training, validation, "correlation").min(axis=1)
    np.testing.assert_allclose(nearest, 1 - distances, atol=1e-6)
    assert threshold.value == pytest.approx(1 - np.percentile(distances, 5), abs=1e-6)
    assert threshold.comparison == ">"


def test_a_run_leaves_weights_pictures_and_a_threshold(trained, people):
    asked, result = trained
    folder = result.folder
    assert {"valid_loss", "source_in_1", "source_in_8", "threshold", "views_over_threshold"} <= set(result.best)
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["learning_rate"] == pytest.approx(room.LEARNING_RATE / 2)  # a cosine that falls to its half
    for name in ("curves.png", "correlations.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 600
    calibration = Calibration.read(folder / "best.calibration.json")
    assert calibration.near == calibration.exact
    assert calibration.exact.value == result.best["threshold"]
    assert (calibration.metric, calibration.base_size, calibration.exact.comparison) == ("dar", 6, ">")
    assert (folder / "best.calibration.json").stat().st_mode & 0o077 == 0
    # From the weights again, by other means.
    encoder, _ = load_encoder(folder / "best.safetensors")
    with torch.no_grad():
        rows = [
            encoder(torch.from_numpy(side.images.astype(np.float32))[:, None], is_centred=False).numpy()
            for side in read_people(asked, (32, 32), with_alike=False)
        ]
    distances = cdist(*rows, "correlation").min(axis=1)
    assert calibration.exact.value == pytest.approx(1 - np.percentile(distances, 5), abs=1e-4)
    assert calibration.false_positive_rate == np.mean(1 - distances > calibration.exact.value)


def test_a_killed_run_goes_on_to_the_same_bits(trained, people, tmp_path, monkeypatch):
    whole = trained[1]
    update = loop._State.after_update

    def killed(state):
        if state.step == 2:
            raise KeyboardInterrupt
        update(state)

    with monkeypatch.context() as patched:
        patched.setattr(loop._State, "after_update", killed)
        with pytest.raises(KeyboardInterrupt):
            train_dar(options(people, tmp_path / "cut"))
    cut = train_dar(options(people, tmp_path / "cut"))
    assert {**cut.best, "seconds": 0} == {**whole.best, "seconds": 0}
    states = [load_encoder(run.folder / "last.safetensors")[0].state_dict() for run in (whole, cut)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": (136, 16)}, r"--size 136x16 .* the network dar: 32x32 is the smallest"),
        ({"epochs": 3}, "--epochs and --steps both say how long"),
        ({"batch_size": 1}, "--batch-size is 1"),
        ({"seed": -1}, "--seed is -1"),
        ({"group_by": "none"}, "known person"),
        ({"valid_part": 0.01}, "two of each"),
        ({"validation_images": Path("other")}, "leave it or --validation-images-dir out"),
        ({"weights": "no.pth"}, r"no\.pth cannot be read"),
        ({"device": "tpu"}, "device"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_written(changes, message, people, tmp_path):
    with pytest.raises(UsageError, match=message):
        train_dar(options(people, tmp_path / "run", **changes))
    assert not (tmp_path / "run" / "run.json").exists()


def test_images_that_cannot_be_read_are_said(tmp_path):
    for person in ("p1", "p2"):
        (tmp_path / "images" / person).mkdir(parents=True)
        (tmp_path / "images" / person / "a.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"0 people are too few .*2 images cannot be read, the first is p1/a\.png: "):
        train_dar(options(tmp_path / "images", tmp_path / "run"))


def test_weights_that_diverge_end_the_run(people, tmp_path):
    with pytest.raises(UsageError, match="diverged at step"):
        train_dar(options(people, tmp_path / "run", learning_rate=1e30))


def test_the_help_shows_the_published_defaults():
    from deepssim.cli.train import dar

    helps = {option.name: option.help for option in dar.params}
    assert f"[default: {room.EPOCHS}]" in helps["epochs"]
    assert f"[default: {room.BATCH_SIZE}]" in helps["batch_size"]
    assert f"[default: {room.LEARNING_RATE:g}]" in helps["learning_rate"]
    assert "{}x{}".format(*room.SIZE) in helps["size"]
    assert describe_dar(room.SIZE).arguments == {"dim": 128}


def test_the_command_says_what_came_of_it(people, tmp_path):
    from click.testing import CliRunner

    from deepssim.cli.train import command

    asked = ("dar", "--dataset-images-dir", people, "--group-by", "parent", "--exp-name", "mine", "--size", "32x32",
             "--steps", 1, "--batch-size", 4, "--valid-part", 0.3, "--device", "cpu", "--quiet", "--json",
             "--out", tmp_path / "mine")  # fmt: skip
    done = CliRunner().invoke(command, [str(argument) for argument in asked], catch_exceptions=False)
    assert json.loads(done.stdout)["folder"] == str(tmp_path / "mine")
    assert Calibration.read(tmp_path / "mine" / "best.calibration.json").metric == "mine"
