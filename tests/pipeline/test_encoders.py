"""The encoders of the package: what comes with them, and what they find on people whom nothing was chosen on."""

from __future__ import annotations

import json
from importlib import resources

import numpy as np
import onnx
import pytest
from benchmarks.membench.bench import CONDITIONS
from benchmarks.membench.run import Settings, draw
from benchmarks.membench.systems import metric_scores

from deepssim.audit import audit
from deepssim.calibration import load_calibration
from deepssim.domain import installed_domains
from deepssim.embed import Encoder
from deepssim.metric import METADATA_KEY, installed_metrics, load_metric
from deepssim.phantom import make_cohort

MOST_BYTES = 16_000_000
ENCODERS = ("brain", "chest")
# Far below what docs/results.md says, so that only a broken encoder, reader or resize fails.
LEAST_FOUND = 0.9


def test_the_encoders_are_small_and_described():
    folder = resources.files("deepssim") / "metrics"
    assert sum(len((folder / f"{name}.onnx").read_bytes()) for name in ENCODERS) <= MOST_BYTES
    card = (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    kinds = {domain.metric: domain for domain in installed_domains()}
    assert set(ENCODERS) == set(kinds) == set(installed_metrics()) - {"pixel", "ums_l2"}
    for name in ENCODERS:
        metric = load_metric(name)
        assert metric.licence == "MIT"
        assert "train_default.py" in metric.provenance
        assert f"`{name}`" in card
        assert metric.calibration().metric == metric.name == name
        assert load_calibration(f"verified.{name}").stage == "verified"


@pytest.mark.parametrize("name", ENCODERS)
def test_the_bundle_says_how_far_it_is_from_pytorch(name):
    model = onnx.load(load_metric(name).path)
    described = json.loads(next(p.value for p in model.metadata_props if p.key == METADATA_KEY))
    assert described["export"]["largest_error"] <= 1e-4
    assert model.opset_import[0].version == 18


@pytest.mark.parametrize("name", ENCODERS)
def test_embeddings_have_unit_norm_and_depend_on_no_unit_and_no_neighbours(name):
    encoder = Encoder(load_metric(name), device="cpu", threads=2)
    images = [np.asarray(image, np.float32) for _, _, image in make_cohort(5, 2, seed=1)]
    prepared = [encoder.prepare(image) for image in images]
    rows = encoder.encode(prepared)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    np.testing.assert_array_equal(encoder.encode(prepared[3:4])[0], rows[3])
    scaled = encoder.encode([encoder.prepare(image * np.float32(4096) - np.float32(1024)) for image in images])
    np.testing.assert_allclose(scaled, rows, atol=2e-4)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("name", ENCODERS)
def test_the_source_of_a_copy_is_among_the_eight_nearest(name, condition, data_folder):
    made = draw(Settings(data_folder, with_distractors=True), name, condition, "test")
    scores = metric_scores(name, made.real, made.synthetic)
    copies = np.flatnonzero(made.bench.source >= 0)
    own = scores[copies, made.bench.source[copies]]
    assert ((scores[copies] > own[:, None]).sum(axis=1) < 8).mean() >= LEAST_FOUND


def test_an_audit_takes_the_encoder_of_the_images_and_tries_it(data_folder, tmp_path):
    people = sorted((data_folder / "brain" / "slices").iterdir())
    for folder, chosen in (("real", people[:10]), ("generated", people[8:12])):
        for person in chosen:
            (tmp_path / folder / person.name).mkdir(parents=True)
            for path in sorted(person.glob("*.png"))[::3]:
                (tmp_path / folder / person.name / path.name).write_bytes(path.read_bytes())
    result = audit(tmp_path / "real", tmp_path / "generated", tmp_path / "out")
    assert result.summary["metric"]["name"] == "brain"
    # Two of the four people are among the real ones.
    assert result.summary["synthetic_flagged"]["flagged"] == 8
    assert result.summary["screening"]["both"]["rate"] >= LEAST_FOUND
