"""Anchors, and the graded partners that are made of them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from deepssim.errors import UsageError
from deepssim.image_ops import ssim
from deepssim.phantom import make_cohort
from deepssim.train.anchors import make_anchors
from deepssim.train.groups import GROUP, GroupOptions, Groups, draw_step

SIZE = (34, 28)
OPTIONS = GroupOptions(block_groups=16, step_groups=4, repeats=2)


@pytest.fixture(scope="module")
def anchors():
    cohort = [(f"{person}/{number}", f"p{person}", image) for person, number, image in make_cohort(8, 3, seed=1)]
    return make_anchors(reversed(cohort), SIZE)


def test_anchors_are_sorted_by_person_and_know_who_looks_alike(anchors):
    assert len(anchors) == 24
    assert anchors.size == SIZE
    assert anchors.people.tolist() == sorted(anchors.people.tolist())
    assert anchors.ids == sorted(anchors.ids)
    for i in range(len(anchors)):
        others = anchors.people[anchors.alike[i]]
        assert anchors.people[i] not in others
        assert len(set(others.tolist())) == len(others) == 7


def test_some_of_the_anchors_are_anchors(anchors):
    part = anchors.subset(anchors.people >= 5)
    assert part.people.tolist() == [0] * 3 + [1] * 3 + [2] * 3
    assert np.array_equal(part.images, anchors.images[15:])
    assert part.alike.shape == (9, 2)


def test_a_neighbour_is_of_the_same_person(anchors):
    rng = np.random.default_rng(0)
    drawn = {anchors.neighbour(4, rng) for _ in range(40)}
    assert drawn == {3, 5}
    with pytest.raises(UsageError, match="two"):
        make_anchors([("a", "p", np.eye(9, dtype=np.float32))], (9, 9))


def test_a_block_is_a_function_of_its_number(anchors):
    groups = Groups(anchors, OPTIONS, seed=3, n_blocks=2)
    first, again, second = groups[0], Groups(anchors, OPTIONS, seed=3, n_blocks=9)[0], groups[1]
    assert np.array_equal(first.images, again.images)
    assert not np.array_equal(first.images, second.images)
    assert first.images.shape == (16 * GROUP, *SIZE)
    with pytest.raises(IndexError):
        groups[2]


def test_a_group_is_its_anchor_with_graded_changes(anchors):
    block = Groups(anchors, OPTIONS, seed=0, n_blocks=1)[0]
    close = []
    for group in block.images.reshape(16, GROUP, *SIZE):
        assert any(np.array_equal(group[0], image) for image in anchors.images)
        close.append([ssim(group[0], image, data_range=None, with_z_score=True) for image in group[1:]])
    exact, near, strong, other = np.mean(close, axis=0)
    assert exact > near > strong > other


def test_steps_of_a_pass_take_every_group_once_with_the_ssim_of_pairs(anchors):
    block = Groups(anchors, OPTIONS, seed=0, n_blocks=1)[0]
    steps = [draw_step(block, OPTIONS, 0, 0, step) for step in range(OPTIONS.block_steps)]
    assert OPTIONS.block_steps == 8
    for part in (steps[:4], steps[4:]):
        images = np.concatenate([step.images for step in part])
        assert sorted(map(bytes, images)) == sorted(map(bytes, block.images))
    assert not all(np.array_equal(a.images, b.images) for a, b in zip(steps[:4], steps[4:], strict=True))
    step = steps[0]
    for place in (0, 50, len(step.pairs) - 1):
        a, b = step.pairs[place]
        expected = ssim(step.images[a], step.images[b], data_range=None, with_z_score=True)
        assert step.similarity[place] == pytest.approx(expected, abs=1e-6)


def test_pairs_of_a_step_are_all_that_look_alike_and_as_many_others(anchors):
    options = GroupOptions(block_groups=16, step_groups=8, repeats=1)
    step = draw_step(Groups(anchors, options, seed=0, n_blocks=1)[0], options, 0, 0, 0)
    cluster = step.pairs // (4 * GROUP)
    is_alike = cluster[:, 0] == cluster[:, 1]
    assert is_alike.sum() == 2 * 20 * 19 // 2 == (~is_alike).sum()
    assert (step.pairs[:, 0] < step.pairs[:, 1]).all()
    assert len(np.unique(step.pairs, axis=0)) == len(step.pairs)
