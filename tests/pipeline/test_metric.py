from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deepssim.calibration import Calibration, Curve, Threshold, parse_thresholds
from deepssim.embed import Encoder
from deepssim.errors import MetricError, UsageError
from deepssim.image_ops import resize_area
from deepssim.metric import load_metric

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(load_metric("pixel"))


def locally_normalised(thumbnail: np.ndarray) -> np.ndarray:
    """What the metric promises, pixel by pixel in float64: a row of unit norm."""
    t = thumbnail.astype(np.float64)
    t = t - t.mean()
    (rows, columns), sigma, floor = t.shape, 1.5, 0.07
    r, c = np.arange(rows)[:, None], np.arange(columns)[None, :]

    def smooth(values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        for y in range(rows):
            for x in range(columns):
                weights = np.exp(-((r - y) ** 2 + (c - x) ** 2) / (2 * sigma**2))
                out[y, x] = (weights * values).sum() / weights.sum()
        return out

    details = t - smooth(t)
    made = details / np.sqrt(smooth(details**2) + floor**2 * (t**2).mean())
    made -= made.mean()
    return (made / np.linalg.norm(made)).ravel()


def test_pixel_is_the_locally_normalised_thumbnail(encoder):
    rng = np.random.default_rng(0)
    images = [rng.gamma(2.0, 50.0, (136, 112)).astype(np.float32) for _ in range(3)]
    rows = encoder.encode([encoder.prepare(image) for image in images])
    expected = [locally_normalised(resize_area(image, 32, 28)) for image in images]
    assert np.allclose(rows, expected, atol=2e-6)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 65535.0, 1e30, 1e38])
def test_an_embedding_does_not_depend_on_scale_and_offset(encoder, scale):
    image = np.random.default_rng(1).random((32, 28), np.float32)
    moved = (image * np.float32(scale) + np.float32(scale)).astype(np.float32)
    a, b = encoder.encode([image, moved])
    assert float(a.astype(np.float64) @ b) > 1 - 1e-6


@pytest.mark.parametrize("value", [0.0, 1.0, 7.3, -1000.3, 3e38])
def test_a_flat_image_has_no_embedding(encoder, value):
    assert not encoder.encode([np.full((32, 28), value, np.float32)]).any()


def test_a_row_does_not_depend_on_what_else_is_in_the_batch(encoder):
    rng = np.random.default_rng(2)
    images = list(rng.random((encoder.batch + 3, 32, 28)).astype(np.float32))
    together = encoder.encode(images)
    for i in (0, 5, encoder.batch - 1, encoder.batch, encoder.batch + 2):
        assert (encoder.encode([images[i]])[0] == together[i]).all()


@pytest.mark.parametrize(
    ("height", "width", "batch"),
    [(32, 28, 64), (136, 112, 64), (137, 112, 32), (224, 224, 16), (256, 256, 8), (512, 512, 2), (2048, 2048, 1)],
)
def test_the_larger_the_input_the_fewer_images_are_embedded_at_a_time(height, width, batch, tmp_path):
    metric = load_metric("pixel")
    metric = replace(metric, input=replace(metric.input, height=height, width=width))
    assert Encoder(metric, device="cpu", threads=1).batch == batch


def test_the_bundle_is_what_its_script_makes(tmp_path):
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "make_pixel_bundle.py", "--out", tmp_path / "pixel.onnx"],
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "pixel.onnx").read_bytes() == load_metric("pixel").path.read_bytes()


def altered(tmp_path: Path, change) -> Path:
    model = onnx.load(load_metric("pixel").path)
    change(model)
    path = tmp_path / "altered.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data_is_refused(tmp_path):
    def change(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../etc/passwd"

    with pytest.raises(MetricError, match="other files"):
        load_metric(str(altered(tmp_path, change)))


def test_operators_of_strangers_are_refused(tmp_path):
    def change(model: onnx.ModelProto) -> None:
        model.graph.node[0].domain = "evil.example"

    with pytest.raises(MetricError, match="not safe"):
        load_metric(str(altered(tmp_path, change)))


def test_an_onnx_file_without_metadata_is_no_bundle(tmp_path):
    with pytest.raises(MetricError, match="not a metric bundle"):
        load_metric(str(altered(tmp_path, lambda model: model.metadata_props.clear())))
    (tmp_path / "noise.onnx").write_bytes(b"\x00\xff\x13" * 99)
    with pytest.raises(MetricError):
        load_metric(str(tmp_path / "noise.onnx"))
    with pytest.raises(UsageError, match="installed: brain, chest, pixel"):
        load_metric("pixels")


def test_a_layout_is_that_of_the_embedding(tmp_path):
    assert load_metric("pixel").layout == (32, 28)

    def told(layout: object):
        def change(model: onnx.ModelProto) -> None:
            (entry,) = model.metadata_props
            described = json.loads(entry.value)
            described.pop("layout")
            entry.value = json.dumps({**described, **({"layout": layout} if layout is not None else {})})

        return change

    assert load_metric(str(altered(tmp_path, told(None)))).layout is None
    for wrong in ([32, 32], [-32, -28], [896], "32", 896, [32, 28, 1]):
        with pytest.raises(MetricError, match=r"layout|metadata"):
            load_metric(str(altered(tmp_path, told(wrong))))


def test_each_kind_of_views_has_thresholds_of_its_own(tmp_path):
    metric = load_metric("pixel")
    assert metric.calibration() == metric.calibration("bank")
    for views in ("none", "flips", "bank"):
        calibration = metric.calibration(views)
        assert calibration.views == views
        calibration.check_views(views)
    with pytest.raises(UsageError, match="--views none, not bank"):
        metric.calibration("none").check_views("bank")
    Calibration("pixel", Threshold(0.5), Threshold(0.8), source="").check_views("bank")
    lonely = load_metric(str(altered(tmp_path, lambda model: None)))
    with pytest.raises(MetricError, match="for --views flips; give them with --thresholds"):
        lonely.calibration("flips")
    with pytest.raises(MetricError, match="of its own; give"):
        lonely.calibration("none")


@given(st.floats(-1, 1, allow_subnormal=False), st.sampled_from([">", ">="]))
def test_a_cut_is_the_smallest_float32_that_passes(value, comparison):
    threshold = Threshold(value, comparison)
    cut = np.float32(threshold.cut())
    below = np.nextafter(cut, np.float32(-np.inf))

    def passes(score: np.float32) -> bool:
        return float(score) > value if comparison == ">" else float(score) >= value

    assert passes(cut)
    assert not passes(below)


def test_calibrations_survive_a_round_trip_and_bad_ones_are_named(tmp_path):
    calibration = load_metric("pixel").calibration()
    calibration.write(tmp_path / "c.json")
    assert Calibration.read(tmp_path / "c.json") == calibration
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(MetricError, match=r"bad\.json"):
        Calibration.read(tmp_path / "bad.json")
    for text in ("1", "a,b", ".9,.8", "nan,1", ".9,.95,.99"):
        with pytest.raises(UsageError):
            Calibration("pixel", *(Threshold(v) for v in parse_thresholds(text)), source="")


def test_an_embedding_does_not_depend_on_how_many_threads_there_are():
    rng = np.random.default_rng(4)
    metric = load_metric("pixel")
    images = [rng.random((metric.height, metric.width), np.float32) for _ in range(197)]  # three batches and a part
    one, many = (Encoder(metric, device="cpu", threads=n).encode(images) for n in (1, 4))
    assert one.tobytes() == many.tobytes()


def test_an_unknown_device_is_refused():
    with pytest.raises(UsageError, match="unknown device 'gpu': auto, cpu, cuda"):
        Encoder(load_metric("pixel"), device="gpu")


def test_files_of_the_first_version_are_read_and_curves_survive(tmp_path):
    old = {
        "format": "deepssim-calibration", "version": 1, "metric": "x", "near": {"value": 0.5, "comparison": ">"},
        "exact": {"value": 0.8, "comparison": ">="}, "source": "a study", "stage": "embedding", "domain": "",
        "base_size": 10, "false_positive_rate": None, "how": "", "views": None,
    }  # fmt: skip
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    read = Calibration.read(path)
    assert (read.cuts()[1], read.curve, read.false_positive_interval) == (np.float32(0.8), None, None)
    curve = Curve((0.1, 0.2), unrelated=(0.5, 0.0))
    new = replace(read, curve=curve, false_positive_interval=(0.0, 0.02))
    new.write(path)
    assert Calibration.read(path) == new
    assert "curve" not in new.as_dict()
    for wrong in ({"cuts": [0.2, 0.1]}, {"cuts": [0.1], "copies": [0.1, 0.2]}, {"cuts": [0.1], "copies": ["a"]}, [1]):
        path.write_text(json.dumps({**old, "version": 2, "curve": wrong}))
        with pytest.raises(MetricError, match=r"old\.json"):
            Calibration.read(path)
    path.write_text(json.dumps({**old, "version": 3}))
    with pytest.raises(MetricError, match="version"):
        Calibration.read(path)


def test_one_threshold_is_legal_and_near_may_not_lie_over_exact():
    one = Calibration("dar", Threshold(0.8030425, ">"), Threshold(0.8030425, ">"), source="")
    assert one.cuts()[0] == one.cuts()[1]
    with pytest.raises(UsageError, match="must not lie over"):
        Calibration("x", Threshold(0.5, ">"), Threshold(0.5, ">="), source="")
