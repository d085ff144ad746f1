"""The reference's command lines, pasted, on a folder in its layout."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from sklearn.metrics import classification_report, silhouette_score

from deepssim import image_ops
from deepssim.metric import load_metric
from deepssim.reference import read_index, read_matrix

SCRIPTS = Path(__file__).parents[2] / "scripts"
LABELS = {"gen-0": 1, "gen-1": 2, "gen-2": 0}


def door(name: str, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


@pytest.fixture
def loaded(monkeypatch) -> Callable[[str], ModuleType]:
    """Load a script as a module."""
    monkeypatch.syspath_prepend(str(SCRIPTS))

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def computed(layout, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("computed")
    done = door(
        "compute_matrix", "--dataset_images_dir", layout, "--embeddings_dir", out / "embeddings",
        "--matrices_dir", out / "matrices", "--indices_dir", out / "indices",
        "--model_path", load_metric("pixel").path, "--metric_name", "deepssim", "--use_gpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "The same here: deepssim score" in done.stderr
    assert "no GPU" in done.stderr or "CUDA" in done.stderr
    return out


@pytest.fixture(scope="module")
def testset(layout, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("testset") / "test.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["real_key", "synth_key", "label"])
        for k in range(6):
            writer.writerows([f"p{k}___training", f"p{k}___{name}", label] for name, label in LABELS.items())
            writer.writerow([f"p{k}___training", f"p{(k + 1) % 6}___gen-0", 0])
    return path


def reference_lines(matrix: Path, real: Path, synthetic: Path, testset: Path) -> dict[str, list[float]]:
    """What the reference prints for a deepssim matrix, from scikit-learn."""
    rows, columns = (np.load(path)["data"].tolist() for path in (real, synthetic))
    scores = np.load(matrix)["data"]
    truth, found, values = [], [], []
    with testset.open(newline="") as file:
        for row in csv.DictReader(file):
            score = scores[rows.index(row["real_key"]), columns.index(row["synth_key"])]
            truth.append(int(row["label"]))
            found.append(0 if score <= 0.6 else 1 if score > 0.85 else 2)
            values.append([float(score)])
    report = classification_report(truth, found, zero_division=0, output_dict=True)
    return {
        **{
            f"{name} [Precision, Recall]": [report[label]["precision"], report[label]["recall"]]
            for name, label in (("Different", "0"), ("Similar", "2"), ("Duplicate", "1"))
        },
        "Weighted F1-Score": [report["weighted avg"]["f1-score"]],
        "Macro F1-Score": [report["macro avg"]["f1-score"]],
        "Silhouette Score": [silhouette_score(np.array(values), np.array(truth))],
    }


def evaluated(matrix: Path, real: Path, synthetic: Path, testset: Path) -> dict[str, list[float]]:
    done = door("eval", "--synth_indices_path", synthetic, "--real_indices_path", real, "--matrix_path", matrix,
                "--testset_csv", testset, "--metric_name", "deepssim")  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = (line.split(" = ") for line in done.stdout.splitlines())
    return {name: [float(text) for text in values.split()] for name, values in lines}


def assert_same(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name] == pytest.approx(values, abs=1e-6), name


def test_its_evaluation_of_our_matrix_is_ours(computed, testset):
    files = (computed / "matrices/deepssim.npz", computed / "indices/real.npz", computed / "indices/synth.npz", testset)
    assert_same(evaluated(*files), reference_lines(*files))


def test_our_evaluation_of_its_matrix_is_its_own(computed, testset, tmp_path):
    # As it writes them: float16, and images in the order in which the file system lists them.
    rng = np.random.default_rng(3)
    names = [read_index(computed / "indices" / f"{part}.npz") for part in ("real", "synth")]
    orders = [rng.permutation(len(one)) for one in names]
    matrix = read_matrix(computed / "matrices/deepssim.npz")[np.ix_(*orders)].astype(np.float16)
    np.savez(tmp_path / "m.npz", data=matrix)
    for part, one, order in zip(("real", "synth"), names, orders, strict=True):
        np.savez(tmp_path / f"{part}.npz", data=np.array(one)[order])
    files = (tmp_path / "m.npz", tmp_path / "real.npz", tmp_path / "synth.npz", testset)
    assert_same(evaluated(*files), reference_lines(*files))


def test_matrices_of_images_are_in_the_order_of_the_indices(layout, computed, tmp_path):
    np.savez(tmp_path / "r.npz", data=np.array(["p4___training", "p1___training"]))
    indices = ("--real_indices_path", tmp_path / "r.npz", "--synth_indices_path", computed / "indices/synth.npz")
    for kind, more in (("ssim", ("--ssim_tmp_dir", tmp_path / "tmp")), ("fsim", ("--num_workers", 1))):
        done = door(f"compute_{kind}", "--dataset_images_dir", layout, "--output_matrix_path", tmp_path / kind,
                    *indices, *more)  # fmt: skip
        assert done.returncode == 0, done.stderr
        matrix = read_matrix(tmp_path / f"{kind}.npz")
        images = [pixels(layout, name) for name in ("p4___training", "p1___training")]
        other = pixels(layout, read_index(computed / "indices/synth.npz")[7])
        rules = {"data_range": None, "with_z_score": True} if kind == "ssim" else {}
        expected = [getattr(image_ops, kind)(image, other, **rules) for image in images]
        np.testing.assert_allclose(matrix[:, 7], expected, atol=1e-6)
    assert not (tmp_path / "tmp").exists()


def test_images_of_several_sizes_are_resized_only_where_it_is_asked_for_or_said(loaded, layout, computed, tmp_path,
                                                                               monkeypatch, capsys):  # fmt: skip
    from PIL import Image

    mixed = shutil.copytree(layout, tmp_path / "mixed")
    with Image.open(mixed / "p2/gen-1.png") as image:
        image.resize((64, 80)).save(mixed / "p2/gen-1.png")
    flags = ("--dataset_images_dir", mixed, "--output_matrix_path", tmp_path / "m", "--num_workers", 1,
             "--real_indices_path", computed / "indices/real.npz",
             "--synth_indices_path", computed / "indices/synth.npz")  # fmt: skip
    done = door("compute_fsim", *flags)
    assert done.returncode == 2
    assert "--resize" in done.stderr
    done = door("compute_fsim", *flags, "--resize", "136x112")
    assert done.returncode == 0, done.stderr
    assert np.isfinite(read_matrix(tmp_path / "m.npz")).all()
    (tmp_path / "dar.pth").write_bytes(b"weights")
    model_arguments(loaded, monkeypatch, tmp_path, mixed, tmp_path / "dar.pth", "dar")
    assert "2 sizes: those of 80 x 64 pixels are brought to 136 x 112" in capsys.readouterr().err


def pixels(layout: Path, name: str) -> np.ndarray:
    from PIL import Image

    with Image.open(layout / f"{name.replace('___', '/')}.png") as image:
        return np.asarray(image)


@pytest.mark.parametrize(
    "name", ["compute_matrix", "compute_ssim", "compute_fsim", "deepssim_train", "eval", "eval_ssim"]
)
def test_unknown_and_missing_flags_are_errors(name):
    done = door(name, "--no_such_flag")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_bad_input_is_an_error_of_one_line(layout, tmp_path):
    common = ("--dataset_images_dir", layout, "--embeddings_dir", tmp_path / "e", "--matrices_dir", tmp_path / "m",
              "--indices_dir", tmp_path / "i")  # fmt: skip
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "missing.pt", tmp_path / "empty", SCRIPTS / "door.py"):
        done = door("compute_matrix", *common, "--model_path", model, "--metric_name", "deepssim")
        assert done.returncode == 2
        assert model.name in done.stderr
        assert "Traceback" not in done.stderr


def test_images_and_folders_are_looked_at_before_a_model_is_exported(layout, tmp_path):
    # The model is no archive at all: whoever reads it first says so.
    (tmp_path / "model.pt").write_bytes(b"no archive")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "flat").mkdir()
    shutil.copy(layout / "p0/gen-0.png", tmp_path / "flat/gen-0.png")
    cases = [
        (tmp_path / "missing", tmp_path / "e", "missing"),
        (tmp_path / "empty", tmp_path / "e", "no images"),
        (tmp_path / "flat", tmp_path / "e", "called training"),
        (layout, layout / "e", "inside the images"),
        (layout, tmp_path / "file", "cannot make the folder"),
        (layout, Path("/proc/e"), "/proc"),
    ]
    for images, embeddings, text in cases:
        done = door(
            "compute_matrix", "--dataset_images_dir", images, "--embeddings_dir", embeddings, "--matrices_dir",
            tmp_path / "m", "--indices_dir", tmp_path / "i", "--model_path", tmp_path / "model.pt", "--metric_name",
            "deepssim",
        )  # fmt: skip
        assert done.returncode == 2
        assert text in done.stderr
        assert "export" not in done.stderr
        assert "Traceback" not in done.stderr
    assert not (layout / "e").exists()


def model_arguments(loaded, monkeypatch, tmp_path, layout, model, metric, **more):
    models = loaded("door_models")
    calls: list[list[str]] = []

    def call(arguments):
        calls.append([str(a) for a in arguments])
        Path(arguments[arguments.index("--out") + 1]).write_bytes(b"")

    monkeypatch.setattr(models.door, "call", call)
    found = [models.bundle_of(str(model), metric, layout, tmp_path, **more) for _ in range(2)]
    assert found[0] == found[1]
    return found[0], calls


@pytest.mark.parametrize(
    ("name", "metric", "before", "after"),
    [
        # Published networks take images as they are, and so their size decides.
        ("best_model_jit.pt", "deepssim", ["--from-torchscript"], ["--size", "136x112"]),
        ("best.safetensors", "deepssim", [], []),
        ("sscd.torchscript.pt", "chen", ["--sscd"], []),
        ("dar.pth", "dar", ["--dar"], ["--reference-axes", "--size", "136x112"]),
        ("best.safetensors", "dar", ["--dar"], []),
    ],
)
def test_a_model_becomes_a_bundle_once(loaded, monkeypatch, tmp_path, layout, name, metric, before, after):
    path = tmp_path / name
    path.write_bytes(b"weights")
    found, calls = model_arguments(loaded, monkeypatch, tmp_path, layout, path, metric)
    assert calls == [["export", *before, str(path), *after, "--out", found, "--name", metric]]
    assert Path(found).parent == tmp_path
    path.write_bytes(b"other weights")
    assert model_arguments(loaded, monkeypatch, tmp_path, layout, path, metric)[0] != found


def test_the_faulty_normalisation_is_another_bundle(loaded, monkeypatch, tmp_path, layout):
    (tmp_path / "sscd.pt").write_bytes(b"weights")
    found, _ = model_arguments(loaded, monkeypatch, tmp_path, layout, tmp_path / "sscd.pt", "chen")
    other, calls = model_arguments(loaded, monkeypatch, tmp_path, layout, tmp_path / "sscd.pt", "chen", is_faulty=True)
    assert other != found
    assert "--reference-normalisation" in calls[0]


def test_an_openclip_model_is_named_and_not_a_file(loaded, monkeypatch, tmp_path, layout):
    _, calls = model_arguments(loaded, monkeypatch, tmp_path, layout, "hf-hub:x/y", "semdedup", weights="w.safetensors")
    assert calls[0][1:5] == ["--openclip", "hf-hub:x/y", "--weights", "w.safetensors"]


def test_bundles_and_folders_of_runs_are_taken_as_they_are(loaded, monkeypatch, tmp_path, layout):
    bundle = str(load_metric("pixel").path)
    assert model_arguments(loaded, monkeypatch, tmp_path, layout, bundle, "chen") == (bundle, [])
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "best_model_jit.pt").write_bytes(b"")
    _, calls = model_arguments(loaded, monkeypatch, tmp_path, layout, tmp_path / "run", "deepssim")
    assert calls[0][2].endswith("best_model_jit.pt")


def test_training_passes_its_flags_on(loaded, monkeypatch):
    train = loaded("deepssim_train")
    calls: list[list[object]] = []
    monkeypatch.setattr(train.door, "run", calls.append)
    line = "x --dataset_images_dir data --dataset_csv pairs.csv --exp_name first --epochs 3 --weights none"
    monkeypatch.setattr(sys, "argv", line.split())
    train.main()
    texts = [str(a) for a in calls[0]]
    assert texts[:4] == ["train", "encoder", "--recipe", "deepssim"]
    for option, value in (("--dataset-images-dir", "data"), ("--dataset-csv", "pairs.csv"), ("--exp-name", "first"),
                          ("--epochs", "3"), ("--emb-dim", "256"), ("--dropout-prob", "0.33"), ("--weights", "none"),
                          ("--device", "cpu")):  # fmt: skip
        assert texts[texts.index(option) + 1] == value
