"""Anchors, and the graded partners that are made of them."""

from __future__ import annotations

import warnings
import weakref

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deepssim.errors import UsageError  # noqa: E402
from deepssim.image_ops import ssim  # noqa: E402
from deepssim.images import ImageOptions, list_images, read_tasks  # noqa: E402
from deepssim.phantom import make_cohort  # noqa: E402
from deepssim.train import anchors as room  # noqa: E402
from deepssim.train.anchors import make_anchors, read_anchors  # noqa: E402
from deepssim.train.group_source import GroupSource  # noqa: E402
from deepssim.train.groups import GROUP, GroupOptions, Groups, plan_step  # noqa: E402

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
    assert part.names == anchors.names[5:] == [f"ppatient-{i:03}" for i in (5, 6, 7)]


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
    steps = [plan_step(block, OPTIONS, 0, 0, step).of(block) for step in range(OPTIONS.block_steps)]
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
    block = Groups(anchors, options, seed=0, n_blocks=1)[0]
    step = plan_step(block, options, 0, 0, 0).of(block)
    cluster = step.pairs // (4 * GROUP)
    is_alike = cluster[:, 0] == cluster[:, 1]
    assert is_alike.sum() == 2 * 20 * 19 // 2 == (~is_alike).sum()
    assert (step.pairs[:, 0] < step.pairs[:, 1]).all()
    assert len(np.unique(step.pairs, axis=0)) == len(step.pairs)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_goes_on_from_any_step_and_ends_at_its_last(workers, anchors):
    n_steps = OPTIONS.block_steps + 3  # a whole block and a part of one
    groups = Groups(anchors, OPTIONS, seed=5, n_blocks=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, message=".*fork.*")
        for first in (0, 5, 9) if workers else range(n_steps + 1):
            batches = list(GroupSource(anchors, OPTIONS, 5, n_steps, workers).steps(first))
            assert len(batches) == n_steps - first
            for place, batch in enumerate(batches[:4], first):
                number, step = divmod(place, OPTIONS.block_steps)
                block = groups[number]
                expected = plan_step(block, OPTIONS, 5, number, step).of(block)
                assert np.array_equal(np.rint(batch.images[:, 0].numpy() * 255), expected.images)
                assert np.array_equal(torch.stack([batch.left, batch.right], 1).numpy(), expected.pairs)
                assert np.array_equal(batch.target.numpy(), expected.similarity)
                assert np.array_equal(batch.people, expected.people)


def test_images_are_not_kept_at_full_size(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for person in range(30):
        (tmp_path / f"p{person:02}").mkdir()
        np.save(tmp_path / f"p{person:02}" / "scan.npy", rng.integers(0, 4096, (2, 68, 56)).astype(np.uint16))
    seen: list[weakref.ref] = []
    most_alive = 0

    def watched(listing, **_):
        nonlocal most_alive
        for result in read_tasks(listing, threads=1):
            seen.extend(weakref.ref(item.pixels) for item in result.items)
            most_alive = max(most_alive, sum(pixels() is not None for pixels in seen))
            yield result

    monkeypatch.setattr(room, "read_tasks", watched)
    assert len(read_anchors(list_images(tmp_path, ImageOptions(group_by="parent")), SIZE)) == len(seen) == 60
    assert most_alive <= 6


def test_images_of_no_known_person_are_counted(tmp_path):
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.arange(64.0).reshape(8, 8))
    with pytest.raises(UsageError, match="2 of 2 images have no known person"):
        read_anchors(list_images(tmp_path, ImageOptions(group_by="none")), SIZE)
