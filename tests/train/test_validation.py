"""What selects the weights: ranks among a gallery, and the error of the cosine."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepssim.phantom import make_cohort  # noqa: E402
from deepssim.train import validation as room  # noqa: E402
from deepssim.train.anchors import make_anchors  # noqa: E402
from deepssim.train.validation import RetrievalValidation, embed, ranks  # noqa: E402

SIZE = (34, 28)
CPU = torch.device("cpu")


class Flat(torch.nn.Module):
    def forward(self, images):
        return torch.nn.functional.normalize(images.flatten(1), dim=1)


class Broken(torch.nn.Module):
    def forward(self, images):
        return torch.full((len(images), 4), float("nan"))


@pytest.fixture(scope="module")
def anchors():
    cohort = [(f"{person}/{number}", f"p{person}", image) for person, number, image in make_cohort(6, 2, seed=1)]
    return make_anchors(cohort, SIZE)


def test_ranks_count_what_is_higher_and_never_find_what_is_no_number():
    scores = np.array([[0.1, 0.9, 0.5], [0.1, np.nan, 0.5], [np.nan] * 3, [0.5, 0.5, np.inf]], np.float32)
    own = np.array([0.5, 0.5, np.nan, np.inf], np.float32)
    assert ranks(scores, own)[:2].tolist() == [1, 1]
    assert (ranks(scores, own)[2:] >= 1_000_000).all()


def test_an_encoder_that_diverged_finds_nothing(anchors):
    figures = RetrievalValidation.of(anchors, None, SIZE).measure(Broken(), CPU)
    assert {value for name, value in figures.items() if "_in_" in name} == {0.0}


def test_images_are_kept_as_bytes_and_seen_as_before(anchors):
    made = RetrievalValidation.of(anchors, anchors, SIZE)
    for images in (made.gallery, made.queries, made.graded):
        assert images.dtype == torch.uint8
        greys = torch.from_numpy(images.numpy().astype(np.float32) / np.float32(255))
        assert np.array_equal(embed(Flat(), images, CPU), embed(Flat(), greys, CPU))
    other = RetrievalValidation.of(anchors, None, (17, 14))
    assert other.gallery.shape == (12, 1, 17, 14)
    assert 0.0 <= float(other.gallery.min()) < float(other.gallery.max()) <= 1.0


def test_more_distractors_than_the_most_are_spread_over_all(anchors, monkeypatch):
    whole = RetrievalValidation.of(anchors, anchors, SIZE)
    assert np.array_equal(whole.gallery[12:, 0], anchors.images)
    monkeypatch.setattr(room, "_MOST_DISTRACTORS", 4)
    part = RetrievalValidation.of(anchors, anchors, SIZE)
    assert np.array_equal(part.gallery[12:, 0], anchors.images[[0, 3, 7, 11]])
    assert torch.equal(part.queries, whole.queries)
