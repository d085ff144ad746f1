"""Labelled pairs: how they are read, and where their scores come from."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image as Picture

from deepssim import image_ops
from deepssim.cli import cli
from deepssim.embed import Encoder
from deepssim.errors import StoreError, UsageError
from deepssim.images import read_image
from deepssim.labelled import find_keys, read_labelled
from deepssim.labelled.images import ImagePairs
from deepssim.labelled.scores import default_calibration
from deepssim.labelled.stored import scores_from_matrix, scores_from_stores
from deepssim.metric import load_metric
from deepssim.perturb import degrade, near_copy
from deepssim.perturbed import perturb_by_id
from deepssim.phantom import make_patient, render
from deepssim.reference import read_index

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="session")
def deepssim(deepssim_here):
    return deepssim_here


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)).save(path)


@pytest.fixture(scope="session")
def layout(tmp_path_factory):
    """Eight people as the reference lays them out, an exact and a near copy and a stranger each."""
    folder = tmp_path_factory.mktemp("layout")
    rng = np.random.default_rng(4)
    lines = ["real_key,synth_key,label"]
    for person in range(8):
        image = render(make_patient(person), noise_seed=person)
        save(folder / f"p{person}" / "training.png", image)
        save(folder / f"p{person}" / "gen-0.png", degrade(image, rng))
        save(folder / f"p{person}" / "gen-1.png", near_copy(image, rng))
        save(folder / f"p{person}" / "gen-2.png", degrade(render(make_patient(100 + person), noise_seed=1), rng))
        lines += [f"p{person}___training,p{person}___gen-{k},{label}" for k, label in enumerate((1, 2, 0))]
    lines += [f"p{k}___training,p{(k + 1) % 8}___gen-0,0" for k in range(8)]
    (folder / "pairs.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def sides(layout, tmp_path_factory):
    """Real and synthetic images in two folders."""
    folder = tmp_path_factory.mktemp("sides")
    for path in sorted(layout.glob("*/*.png")):
        side = "real" if path.stem == "training" else "synthetic"
        (folder / side / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / side / path.parent.name / path.name).write_bytes(path.read_bytes())
    return folder


@pytest.fixture(scope="session")
def stores(sides, tmp_path_factory, deepssim):
    """Their embeddings."""
    folder = tmp_path_factory.mktemp("stores")
    for side, gallery in (("real", ["--gallery"]), ("synthetic", [])):
        done = deepssim(
            "embed", sides / side, "--metric", "brain", "--out", folder / side, "--group-by", "parent", *gallery
        )
        assert done.returncode == 0, done.stderr
    return folder


def synthetic_only(pairs):
    return replace(pairs, real_keys=pairs.synthetic_keys)


def listed(tmp_path, text: str) -> Path:
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_labels_people_and_keys_are_read(tmp_path):
    pairs = read_labelled(listed(tmp_path, "synth_key,label,x,real_key\np1___g,1,,p1___t\np1___h,Near,,p2___t\n"))
    assert pairs.real_keys == ("p1___t", "p2___t")
    assert pairs.synthetic_keys == ("p1___g", "p1___h")
    assert pairs.labels.tolist() == [1, 2]
    assert (pairs.people.tolist(), pairs.people_from) == (["p1", "p2"], "folder of the real image")


def test_a_column_group_says_who_is_who(tmp_path):
    path = listed(tmp_path, "\ufeffreal_key,synth_key,label,group\na,b,0,me\nc,d,2,me\n")
    assert read_labelled(path, group_by="parent").people.tolist() == ["me", "me"]


@pytest.mark.parametrize(
    ("how", "wanted"),
    [("auto", ["a/1", "a/2"]), ("none", ["a/1", "a/2"]), ("parent", ["a", "a"]), (r"regex:/(\d)", ["1", "2"])],
)
def test_people_come_from_the_real_image(tmp_path, how, wanted):
    # One folder of all real images says nothing about who is who.
    path = listed(tmp_path, "real_key,synth_key,label\na/1,x,0\na/2,y,1\n")
    assert read_labelled(path, group_by=how).people.tolist() == wanted


def test_everything_that_is_wrong_is_named_at_once(tmp_path):
    text = "real_key,synth_key,label,group\na,b,7,g\n,b,0,g\nc,d,1,g\nc,d,similar,h\ne,f,nine,\n"
    with pytest.raises(UsageError) as caught:
        read_labelled(listed(tmp_path, text))
    message = str(caught.value)
    for part in ("1 row without a key: line 3", "2 rows with an unknown label", "'7' in line 2", "'nine' in line 6",
                 "1 row without a group: line 6", "c with d is 1 in line 4 and 2 in line 5",
                 "c is of g in line 4 and h in line 5"):  # fmt: skip
        assert part in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "no column real_key and no column synth_key and no column label"),
        ("real_key,label\na,1\n", "no column synth_key"),
        ("real_key;synth_key;label\na;b;1\n", "separated by semicolons, write commas"),
        ("real_key,synth_key,label\n", "no rows"),
        ("real_key,synth_key,label,label\na,b,1,1\n", "more than once"),
        ("real_key,synth_key,label\na,b\nc\n", "2 rows with too few cells: line 2, line 3"),
        ('real_key,synth_key,label\n"a,b,1\n', "cannot be read"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused(tmp_path, text, what):
    with pytest.raises(UsageError, match=what):
        read_labelled(listed(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_bytes(b"real_key,synth_key,label\n\xff,b,1\n")
    with pytest.raises(UsageError, match="UTF-8"):
        read_labelled(path)


def test_keys_find_images_by_text_then_file_then_folder_and_stem():
    names = ["p1___gen-0", "p1/gen-0.png", "site/p2/gen-0.jpg", "stack.npy#3"]
    keys = ["p1___gen-0", "p1/gen-0.png", "p2___gen-0", "stack.npy#3"]
    assert find_keys(keys, names, "here") == [0, 1, 2, 3]
    assert find_keys(["b"], ["id-7"], "here", others=["b"]) == [0]
    with pytest.raises(UsageError, match=r"2 images .* 'x', 'y'"):
        find_keys(["x", "y", "b"], ["b"], "here")
    with pytest.raises(UsageError, match=r"fit several .*'p2___gen-0'"):
        find_keys(["p2___gen-0"], ["a/p2/gen-0.png", "b/p2/gen-0.png"], "here")


def test_ssim_of_images_is_that_of_the_matrix_file(layout, sides, tmp_path, deepssim):
    pairs = read_labelled(layout / "pairs.csv")
    wanted = ImagePairs(pairs, layout).scores("ssim").scores
    for suffix, tolerance in ((".npy", 1e-6), (".npz", 5e-4)):
        matrix = tmp_path / f"ssim{suffix}"
        done = deepssim("matrix", "ssim", sides / "real", sides / "synthetic", "--out", matrix)
        assert done.returncode == 0, done.stderr
        found = scores_from_matrix(pairs, matrix, None, None, "ssim").scores
        np.testing.assert_allclose(found, wanted, atol=tolerance)
    one = read_image(layout, "p0/training.png", "p0/training.png").pixels
    two = read_image(layout, "p0/gen-0.png", "p0/gen-0.png").pixels
    assert wanted[0] == pytest.approx(image_ops.ssim(one, two, data_range=None, with_z_score=True), abs=1e-12)


def test_stores_images_and_a_matrix_of_the_same_embeddings_give_equal_scores(layout, sides, stores, tmp_path):
    pairs = read_labelled(layout / "pairs.csv")
    embedded = scores_from_stores(pairs, stores / "real", stores / "synthetic")
    images = ImagePairs(pairs, layout).scores("brain")
    assert embedded.metric == images.metric == "brain"
    assert embedded.calibration == images.calibration == load_metric("brain").calibration()
    np.testing.assert_array_equal(embedded.scores, images.scores)
    assert embedded.condition == images.condition == ""
    assert scores_from_stores(synthetic_only(pairs), stores / "synthetic", stores / "synthetic").condition != ""
    # The same as a matrix in the reference's files, from embeddings made here.
    encoder = Encoder(load_metric("brain"), device="cpu")
    names = [sorted(p.relative_to(sides / s) for p in (sides / s).rglob("*.png")) for s in ("real", "synthetic")]
    rows = []
    for encode, side, files in zip((encoder.encode_gallery, encoder.encode), ("real", "synthetic"), names, strict=True):
        pixels = [read_image(sides / side, str(f), str(f)).pixels for f in files]
        found = encode([encoder.prepare(p) for p in pixels]).astype(np.float64)
        rows.append(found / np.linalg.norm(found, axis=1, keepdims=True))
        np.savez(tmp_path / f"{side}.npz", data=np.array([f"{f.parent}___{f.stem}" for f in files]))
    np.savez(tmp_path / "m.npz", data=(rows[0] @ rows[1].T).astype(np.float32))
    assert len(read_index(tmp_path / "real.npz")) == 8
    matrix = scores_from_matrix(
        pairs, tmp_path / "m.npz", tmp_path / "real.npz", tmp_path / "synthetic.npz", "deepssim"
    )
    np.testing.assert_allclose(matrix.scores, images.scores, atol=2e-6)
    assert matrix.calibration.near.comparison == ">"

    broken = tmp_path / "other.npz"
    np.savez(broken, data=np.full((8, 24), np.nan, np.float32))
    with pytest.raises(UsageError, match="32 scores that are not finite"):
        scores_from_matrix(pairs, broken, tmp_path / "real.npz", tmp_path / "synthetic.npz", "x")
    with pytest.raises(StoreError):
        scores_from_stores(pairs, stores / "real", sides / "synthetic")


def test_registered_pairs_are_judged_as_a_run_judges_them(layout, stores, tmp_path, deepssim):
    pairs = read_labelled(layout / "pairs.csv")
    done = deepssim("score", stores / "real", stores / "synthetic", "--out", tmp_path / "run", "--k", "8",
                    "--calibration", "verified", "--csv")  # fmt: skip
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "matches.csv").open() as file:
        seen = {(row["real_id"], row["synthetic_id"]): row for row in csv.DictReader(file)}
    scores = ImagePairs(pairs, layout).scores("verified")
    words = {0: "unrelated", 1: "exact", 2: "near"}
    for k, (real, synthetic) in enumerate(zip(pairs.real_keys, pairs.synthetic_keys, strict=True)):
        row = seen[f"{real.replace('___', '/')}.png", f"{synthetic.replace('___', '/')}.png"]
        assert scores.scores[k] == pytest.approx(float(row["s1"]), abs=1e-6)
        assert scores.detail[k] == pytest.approx(float(row["s2"]), abs=1e-6)
        assert words[int(scores.labels()[k])] == row["label"]
    copies = pairs.labels != 0
    assert scores.scores[copies].min() > scores.scores[~copies].max()


def test_images_that_cannot_be_used_are_all_named(layout, tmp_path):
    for name in ("p0/training.png", "p0/gen-0.png", "p1/gen-0.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((layout / name).read_bytes())
    lines = "real_key,synth_key,label\np0___training,p0___gen-0,1\np0___training,p1___gen-0,0\n"
    pairs = read_labelled(listed(tmp_path, lines))
    for name in ("p0/gen-0.png", "p1/gen-0.png"):
        (tmp_path / name).write_bytes(b"no image")
    for metric in ("ssim", "verified", "pixel"):
        with pytest.raises(UsageError, match=r"2 images .*p0/gen-0.png: .*p1/gen-0.png: "):
            ImagePairs(pairs, tmp_path).scores(metric)
    absent = read_labelled(listed(tmp_path, lines + "../p0___training,p9___gen-0,0\n"))
    with pytest.raises(UsageError, match=r"2 images .*'\.\./p0___training', 'p9___gen-0'"):
        ImagePairs(absent, tmp_path)
    with pytest.raises(UsageError, match=r"unknown metric 'a', 'verified\.b'"):
        ImagePairs(read_labelled(layout / "pairs.csv"), layout).check(["a", "ssim", "verified.b"])


def test_slices_of_volumes_are_named_and_how_is_said(tmp_path):
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 255, (12, 14, 5)).astype(np.uint8)
    for name in ("a", "b"):
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / f"{name}.nii.gz")
    whole = read_labelled(listed(tmp_path, "real_key,synth_key,label\na.nii.gz,b.nii.gz,1\n"))
    with pytest.raises(UsageError, match="written PATH#axial40"):
        ImagePairs(whole, tmp_path).scores("ncc")
    text = "real_key,synth_key,label\na.nii.gz#axial2,b.nii.gz#axial2,1\na.nii.gz#axial2,b.nii.gz#axial3,0\n"
    found = ImagePairs(read_labelled(listed(tmp_path, text)), tmp_path).scores("ncc").scores
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(np.corrcoef(volume[..., 2].ravel(), volume[..., 3].ravel())[0, 1], abs=1e-6)


def test_sizes_that_differ_need_a_resize(layout, tmp_path):
    save(tmp_path / "a" / "training.png", render(make_patient(1), noise_seed=1))
    save(tmp_path / "a" / "gen.png", np.repeat(np.repeat(render(make_patient(1), noise_seed=1), 2, 0), 2, 1))
    pairs = read_labelled(listed(tmp_path, "real_key,synth_key,label\na___training,a___gen,1\n"))
    with pytest.raises(UsageError, match=r"272 x 224 .* --resize 136x112"):
        ImagePairs(pairs, tmp_path).scores("ssim")
    assert ImagePairs(pairs, tmp_path, size=(136, 112)).scores("ssim").scores[0] == pytest.approx(1, abs=1e-6)


def test_the_perturbed_condition_is_one_draw_an_image_and_breaks_what_compares_in_place(layout):
    pairs = read_labelled(layout / "pairs.csv")
    still, moved, both = (
        ImagePairs(pairs, layout, perturb_seed=seed, perturb_both=is_both)
        for seed, is_both in ((None, False), (3, False), (3, True))
    )
    copies = pairs.labels == 1
    assert moved.scores("ssim").scores[copies].mean() < still.scores("ssim").scores[copies].mean() - 0.2
    assert moved.scores("verified").scores[copies].min() > 0.8
    assert (both.scores("ssim").scores != moved.scores("ssim").scores).any()
    assert "synthetic" in moved.condition
    pixels = read_image(layout, "p0/gen-0.png", "p0/gen-0.png").pixels
    seen = perturb_by_id(pixels, "p0/gen-0.png", 3)
    real = read_image(layout, "p0/training.png", "p0/training.png").pixels
    wanted = image_ops.ssim(real, seen, data_range=None, with_z_score=True)
    assert moved.scores("ssim").scores[0] == pytest.approx(wanted, abs=1e-12)
    assert (seen == np.rint(seen)).all()


def test_ssim_has_the_thresholds_of_what_imitates_it_and_correlation_none():
    assert default_calibration("ssim") == default_calibration("deepssim")
    assert default_calibration("ncc") is None


def test_the_command_writes_every_table(layout, tmp_path, deepssim):
    out = tmp_path / "evaluation"
    done = deepssim("eval", "--pairs", layout / "pairs.csv", "--images", layout, "--metric", "ssim", "--metric", "ncc",
                    "--metric", "verified", "--resamples", 200, "--out", out, "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value == json.loads((out / "evaluation.json").read_text())
    assert [metric["name"] for metric in value["metrics"]] == ["ssim", "ncc", "verified"]
    assert value["support"] == {"unrelated": 16, "exact": 8, "near": 8}
    assert value["resampling"]["units"] == ["people", "synthetic images"]
    assert value["people_from"] == "folder of the real image"
    assert {path.name for path in out.iterdir()} == {
        "comparisons.csv", "evaluation.json", "evaluation.md", "evaluation.tex", "figures.csv", "pairs.csv"
    }  # fmt: skip
    assert (out / "pairs.csv").read_text().count("\n") == 33
    latex = (out / "evaluation.tex").read_text()
    assert latex.count(r"\begin{tabular}") == 4
    assert all(line.startswith("%") or r"\%" in line for line in latex.splitlines() if "%" in line)
    assert "| verified | near S1 \\>= 0.73" in (out / "evaluation.md").read_text()


def test_the_command_shows_a_table_and_chooses_thresholds_where_asked(layout, deepssim):
    common = ["eval", "--pairs", layout / "pairs.csv", "--images", layout, "--metric", "ncc", "--resamples", 100, "-q"]
    plain = deepssim(*common)
    assert plain.returncode == 0, plain.stderr
    assert "no thresholds are known" in plain.stdout
    tuned = deepssim(*common, "--tune-on", layout / "pairs.csv")
    assert "8 people of pairs.csv" in tuned.stdout
    here = deepssim(*common, "--tune-here")
    assert "optimistic" in here.stdout
    assert "macro F1" in here.stdout


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "say where scores come from"),
        (["--images", "."], "--images needs --metric"),
        (["--matrix", "a.npz", "--perturb"], "--perturb changes images"),
        (["--real-store", "a"], "go together"),
        (["--images", ".", "--metric", "ssim", "--tune-here", "--thresholds", ".1,.2"], "given or chosen"),
        (["--matrix", "a.npz", "--metric", "a", "--metric", "b"], "2 --metric for 1 --matrix"),
    ],
)
def test_options_that_do_not_fit_are_refused(layout, arguments, what):
    done = CliRunner().invoke(cli, ["eval", "--pairs", str(layout / "pairs.csv"), *arguments])
    assert done.exit_code == 2
    assert what in done.stderr


def test_the_doors_print_the_six_lines_of_the_reference(layout, sides, tmp_path, deepssim):
    done = deepssim("matrix", "ssim", sides / "real", sides / "synthetic", "--out", tmp_path / "m.npz")
    assert done.returncode == 0, done.stderr
    by_matrix = [sys.executable, SCRIPTS / "eval.py", "--metric_name", "deepssim", "--matrix_path", tmp_path / "m.npz",
                 "--real_indices_path", tmp_path / "m.real.npz", "--synth_indices_path", tmp_path / "m.synthetic.npz",
                 "--testset_csv", layout / "pairs.csv"]  # fmt: skip
    by_images = [sys.executable, SCRIPTS / "eval_ssim.py", "--dataset_images_dir", layout, "--testset_csv",
                 layout / "pairs.csv"]  # fmt: skip
    from sklearn.metrics import classification_report, silhouette_score

    pairs = read_labelled(layout / "pairs.csv")
    index = [read_index(tmp_path / f"m.{side}.npz") for side in ("real", "synthetic")]
    matrix = np.load(tmp_path / "m.npz")["data"]
    scores = np.array(
        [
            matrix[index[0].index(a), index[1].index(b)]
            for a, b in zip(pairs.real_keys, pairs.synthetic_keys, strict=True)
        ]
    ).astype(float)
    truth = pairs.labels
    report = classification_report(
        truth, np.where(scores <= 0.6, 0, np.where(scores > 0.85, 1, 2)), zero_division=0, output_dict=True
    )
    wanted = [x for label in "021" for x in (report[label]["precision"], report[label]["recall"])]
    wanted += [report[f"{kind} avg"]["f1-score"] for kind in ("weighted", "macro")]
    wanted.append(silhouette_score(scores[:, None], truth))
    titles = ["Different [Precision, Recall]", "Similar [Precision, Recall]", "Duplicate [Precision, Recall]",
              "Weighted F1-Score", "Macro F1-Score", "Silhouette Score"]  # fmt: skip
    for command, tolerance in ((by_matrix, 1e-6), (by_images, 1e-3)):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert [line.partition(" = ")[0] for line in done.stdout.splitlines()] == titles
        found = [float(x) for line in done.stdout.splitlines() for x in line.partition(" = ")[2].split()]
        np.testing.assert_allclose(found, wanted, atol=tolerance)
    assert "The same here: deepssim eval" in done.stderr


@pytest.mark.parametrize("option", ["--csv", "--markdown", "--latex", "--out"])
def test_no_output_takes_the_place_of_an_input(layout, tmp_path, option):
    held = (layout / "pairs.csv").read_bytes()
    mine = tmp_path / "pairs.csv"
    mine.write_bytes(held)
    target = tmp_path if option == "--out" else mine
    done = CliRunner().invoke(
        cli, ["eval", "--pairs", str(mine), "--images", str(layout), "--metric", "ncc", option, str(target)]
    )
    assert isinstance(done.exception, UsageError)
    assert "which is read: name another place" in str(done.exception)
    assert mine.read_bytes() == held
    assert list(tmp_path.iterdir()) == [mine]


def test_what_is_wrong_with_the_list_for_thresholds_is_said_before_anything_is_scored(layout, tmp_path, monkeypatch):
    monkeypatch.setattr(ImagePairs, "scores", lambda *_, **__: pytest.fail("it was scored"))
    other = listed(tmp_path, "real_key,synth_key,label\nx___a,x___b,1\n")
    done = CliRunner().invoke(cli, ["eval", "--pairs", str(layout / "pairs.csv"), "--images", str(layout), "--metric",
                                    "ncc", "--tune-on", str(other)])  # fmt: skip
    assert "2 images of the labelled pairs cannot be found" in str(done.exception)
