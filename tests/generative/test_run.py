"""The run: grey values, what an audit is fed, and the real image beside its copies."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as Picture

from deepssim.errors import MetricError, UsageError
from deepssim.generative.sampling.plan import plan_records
from deepssim.generative.sampling.run import (
    GeneratedStream,
    GenerateOptions,
    generate,
    to_bytes,
    to_unit,
    write_training_images,
)
from deepssim.generative.sampling.sinks import FileSink, FolderSink
from deepssim.generative.sampling.streams import NpyStream
from deepssim.images import Image, Skipped
from deepssim.progress import Silent

PLAN = plan_records(["p1", "p2"], 5)
OPTIONS = GenerateOptions(steps=2)


def test_min_max_is_what_the_reference_writes():
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1, 300):
        image = (scale * rng.standard_normal((40, 30))).astype(np.float32)
        expected = (255 * (image - image.min()) / (image.max() - image.min())).astype(np.uint8)
        np.testing.assert_array_equal(to_bytes(image, "min-max"), expected)
    assert not to_bytes(np.full((3, 3), 7, np.float32), "min-max").any()


def test_clip_keeps_every_grey_of_eight_bits_and_cuts_off_the_rest():
    greys = np.arange(256, dtype=np.float32)[None] / 255
    np.testing.assert_array_equal(to_bytes(greys, "clip")[0], np.arange(256))
    np.testing.assert_array_equal(to_bytes(np.array([[-3, 2]], np.float32), "clip"), [[0, 255]])
    assert to_unit(np.array([[-3, 0.3, 2]], np.float32), "clip").tolist() == [[0.0, np.float32(0.3), 1.0]]
    with pytest.raises(UsageError, match="clip or min-max"):
        GenerateOptions(intensity="auto")


def test_an_audit_is_fed_what_files_would_hold_from_any_image_on(backend, tmp_path):
    generate(PLAN, backend, FolderSink(tmp_path), OPTIONS)
    stream = GeneratedStream(PLAN, backend, OPTIONS)
    fed = list(stream.images())
    assert (stream.n_expected, len(fed), stream.is_seekable) == (10, 10, True)
    for image in fed:
        assert isinstance(image, Image)
        with Picture.open(tmp_path / image.id) as picture:
            np.testing.assert_array_equal(np.asarray(picture, np.float32), image.pixels)
    for first in (1, 4, 7, 10):
        assert [image.pixel_hash for image in stream.images(first)] == [image.pixel_hash for image in fed[first:]]


def test_a_constant_image_is_left_out_of_an_audit_and_the_rest_comes(backend):
    flat = replace(
        backend, decode=lambda latents: np.where(np.arange(4)[:, None, None] == 1, 0.5, backend.decode(latents))
    )
    fed = list(GeneratedStream(PLAN, flat, OPTIONS).images())
    assert [type(image) for image in fed] == [Image, Skipped, Image, Image] * 2 + [Image, Skipped]


def test_the_signature_of_a_stream_changes_with_all_that_its_images_depend_on(make):
    def signature(plan=PLAN, made=None, **options):
        backend = make(**{"dim": 2, "is_guidable": True, **(made or {})})
        return str(GeneratedStream(plan, backend, GenerateOptions(**options)).signature())

    found = [
        signature(),
        signature(seed=1),
        signature(steps=3),
        signature(guidance=2.0),
        signature(intensity="min-max"),
        signature(transpose=True),
        signature(made={"batch": 2}),
        signature(made={"fingerprint": "0" * 64}),
        signature(plan_records(["p1", "p3"], 5)),
        signature(PLAN.narrowed(["p1/0"])),
    ]
    assert len(set(found)) == len(found)
    assert signature() == found[0]
    with pytest.raises(UsageError, match="takes no condition"):
        GeneratedStream(PLAN, make(), GenerateOptions(guidance=2.0))


def test_a_transposed_model_writes_upright_images(backend, tmp_path):
    made = {}
    for name, options in (("a", OPTIONS), ("b", replace(OPTIONS, transpose=True))):
        size = (6, 8) if options.transpose else (8, 6)
        generate(PLAN, backend, FileSink(tmp_path / f"{name}.npy", NpyStream(size, "float32")), options)
        made[name] = np.load(tmp_path / f"{name}.npy")
    np.testing.assert_array_equal(made["a"], made["b"].transpose(0, 2, 1))


def test_the_real_image_lies_beside_its_copies_and_is_written_once(backend, tmp_path):
    loaded = []

    def load(records):
        loaded.append(records[0].uid)
        return np.array([[[0, 0.5], [0.2, 1]]], np.float32)

    def training(sink):
        records = [SimpleNamespace(uid="p1"), SimpleNamespace(uid="p2")]
        write_training_images(sink, records, load, OPTIONS, Silent())

    for _ in range(2):
        generate(PLAN, backend, FolderSink(tmp_path), OPTIONS, training=training)
    assert loaded == ["p1", "p2"]
    with Picture.open(tmp_path / "p2" / "training.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), [[0, 128], [51, 255]])


def test_what_was_made_before_a_failure_stays_and_is_not_made_again(backend, tmp_path):
    calls = []

    def failing(latents):
        calls.append(1)
        images = backend.decode(latents)
        return images if len(calls) != 2 else np.full_like(images, np.nan)

    with pytest.raises(MetricError, match="image 4 of p1"):
        generate(PLAN, replace(backend, decode=failing), FolderSink(tmp_path), OPTIONS)
    done = generate(PLAN, backend, FolderSink(tmp_path), OPTIONS)
    assert (done.n_there, done.n_made) == (4, 6)
