"""Reading in parallel: the same results in the same order, in bounded memory, and an end that is one."""

from __future__ import annotations

import gc
import hashlib
import threading

import numpy as np
import pytest
from PIL import Image as PillowImage

from deepssim.errors import ImageError, UsageError
from deepssim.images import Image, ImageOptions, list_images, listing_digest, read_image, read_tasks, stream
from deepssim.images.frames import Budget


@pytest.fixture
def mixed(tmp_path, tiff, ramp):
    """A folder of many formats, with bad files among the good."""
    rng = np.random.default_rng(0)
    for index in range(12):
        values = rng.integers(0, 255, (20 + index, 30), dtype=np.uint8)
        PillowImage.fromarray(values).save(tmp_path / f"p{index:02}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "pages.tif").write_bytes(tiff({"values": ramp("u1")}, {"values": ramp("u2")}))
    np.save(tmp_path / "stack.npy", rng.normal(size=(700, 6, 5)))
    np.savez(tmp_path / "two.npz", a=ramp("u2"), b=np.zeros((3, 3)))
    return tmp_path


def flat(results) -> list[tuple]:
    return [
        (
            result.task_index,
            result.digest,
            item.id,
            getattr(item, "pixel_hash", None),
            getattr(item, "reason", None),
        )
        for result in results
        for item in result.items
    ]


def test_results_do_not_depend_on_the_number_of_threads(mixed):
    listing = list_images(mixed)
    expected = flat(read_tasks(listing, threads=1))
    assert [row[0] for row in expected] == sorted(row[0] for row in expected)
    assert len({row[2] for row in expected}) == len(expected)
    for threads in (2, 5, None):
        assert flat(read_tasks(listing, threads=threads)) == expected


def test_reading_can_begin_in_the_middle(mixed):
    listing = list_images(mixed)
    expected = list(read_tasks(listing))
    for first in (0, 3, len(listing.tasks) - 1, len(listing.tasks)):
        rest = read_tasks(listing, first_task=first, threads=2)
        assert flat(rest) == flat(expected[first:])


@pytest.mark.parametrize("options", [{"first_task": -1}, {"first_task": 10**6}, {"threads": 0}])
def test_numbers_out_of_range_are_refused_at_once(mixed, options):
    with pytest.raises(UsageError):
        read_tasks(list_images(mixed), **options)


def test_a_digest_is_that_of_the_file(mixed):
    listing = list_images(mixed)
    for result in read_tasks(listing):
        task = listing.tasks[result.task_index]
        data = (mixed / listing.files[task.file_index].path).read_bytes()
        if task.start is not None:
            frame = 6 * 5 * 8
            data = data[:128] + data[128 + task.start * frame : 128 + task.stop * frame]
        assert result.digest == hashlib.sha256(data).hexdigest()


def test_every_image_can_be_read_again_by_its_id(mixed):
    listing = list_images(mixed)
    n_images = 0
    for result in read_tasks(listing):
        for item in result.items[:3]:
            if isinstance(item, Image):
                again = read_image(listing.root, item.path, item.id, listing.options)
                assert (again.id, again.path, again.pixel_hash) == (item.id, item.path, item.pixel_hash)
                np.testing.assert_array_equal(again.pixels, item.pixels)
                n_images += 1
            else:
                with pytest.raises(ImageError) as caught:
                    read_image(listing.root, item.path, item.id, listing.options)
                assert caught.value.code == item.code
    assert n_images > 12


def test_ids_of_a_manifest_are_read_again_too(mixed):
    (mixed / "list.csv").write_text("path,id\np00.png,one#2\npages.tif,two\ntwo.npz,three#b#c\nstack.npy,four\n")
    listing = list_images(mixed / "list.csv")
    for result in read_tasks(listing):
        for item in result.items[-2:]:
            if isinstance(item, Image):
                again = read_image(listing.root, item.path, item.id, listing.options)
                assert (again.id, again.pixel_hash) == (item.id, item.pixel_hash)


@pytest.mark.parametrize(
    ("path", "image_id"),
    [
        ("p00.png", "p00.png#0"),
        ("pages.tif", "pages.tif"),
        ("pages.tif", "pages.tif#2"),
        ("stack.npy", "stack.npy"),
        ("stack.npy", "stack.npy#700"),
        ("stack.npy", "stack.npy#" + "9" * 5000),
        ("two.npz", "two.npz"),
        ("two.npz", "two.npz#c"),
        ("two.npz", "two.npz#a/0"),
        ("none.png", "none.png"),
    ],
)
def test_an_id_that_names_nothing_is_missing(mixed, path, image_id):
    with pytest.raises(ImageError) as caught:
        read_image(mixed, path, image_id, ImageOptions())
    assert caught.value.code == "missing"


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("deepssim-read")]


def test_closing_early_stops_the_threads(mixed):
    results = read_tasks(list_images(mixed), threads=3)
    next(results)
    assert reader_threads()
    results.close()
    assert not reader_threads()


def test_an_error_of_the_caller_stops_the_threads(mixed):
    def consume():
        for _ in read_tasks(list_images(mixed), threads=3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert not reader_threads()


def test_an_interrupt_while_waiting_stops_the_threads(mixed, monkeypatch):
    """What Ctrl-C does: it is raised where the main thread waits for a result."""

    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr(stream.Future, "result", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(read_tasks(list_images(mixed), threads=2))
    assert not reader_threads()


def test_no_more_tasks_are_begun_than_the_window_holds(mixed, monkeypatch):
    begun = []
    original = stream._read_task

    def counted(listing, index, context):
        begun.append(index)
        return original(listing, index, context)

    monkeypatch.setattr(stream, "_read_task", counted)
    listing = list_images(mixed)
    results = read_tasks(listing, threads=2)
    for n_taken, _ in enumerate(results, 1):
        assert len(begun) <= n_taken + 4
    assert sorted(begun) == list(range(len(listing.tasks)))


def test_nothing_is_begun_while_too_many_bytes_wait(mixed, monkeypatch):
    monkeypatch.setattr(stream, "MAX_DECODED_BYTES", 0)
    listing = list_images(mixed)
    assert flat(read_tasks(listing, threads=3)) == flat(read_tasks(listing, threads=1))


def test_large_files_are_unpacked_one_after_the_other():
    budget = Budget(100)
    entered, inside, most = threading.Barrier(4), [], []

    def work(n_bytes):
        entered.wait()
        with budget.reserve(n_bytes):
            inside.append(n_bytes)
            most.append(sum(inside))
            inside.remove(n_bytes)

    workers = [threading.Thread(target=work, args=(n_bytes,)) for n_bytes in (60, 60, 500, 40)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(10)
        assert not worker.is_alive()
    assert all(total <= 100 or total == 500 for total in most)


# The digest of a listing


def test_the_digest_is_the_same_for_the_same_images(mixed):
    assert listing_digest(list_images(mixed)) == listing_digest(list_images(mixed), threads=1)


def test_the_digest_changes_with_one_byte(mixed):
    before = listing_digest(list_images(mixed))
    data = bytearray((mixed / "stack.npy").read_bytes())
    data[-1] ^= 1
    (mixed / "stack.npy").write_bytes(bytes(data))
    assert listing_digest(list_images(mixed)) != before


def test_the_digest_changes_with_names_files_and_groups(mixed):
    digests = {listing_digest(list_images(mixed))}
    (mixed / "p00.png").rename(mixed / "p99.png")
    digests.add(listing_digest(list_images(mixed)))
    (mixed / "p99.png").unlink()
    digests.add(listing_digest(list_images(mixed)))
    for group_by in ("regex:.", "regex:..", "none"):
        digests.add(listing_digest(list_images(mixed, ImageOptions(group_by=group_by))))
    # "none" is what "auto" gives here.
    assert len(digests) == 5


def test_the_digest_changes_with_manifest_ids_and_groups(mixed):
    digests = set()
    for text in (
        "path\np01.png\n",
        "path,id\np01.png,1\n",
        "path,group\np01.png,1\n",
        "path,id,group\np01.png,1,1\n",
    ):
        (mixed / "list.csv").write_text(text)
        digests.add(listing_digest(list_images(mixed / "list.csv")))
    assert len(digests) == 4


def test_the_digest_changes_with_the_options_that_matter(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    PillowImage.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5)).save(tmp_path / "a.png")
    choices = [{}, {"slices": "3"}, {"axis": "coronal"}, {"max_pixels": 1000}]
    # Without a volume, slices and axis do not matter.
    assert len({listing_digest(list_images(tmp_path, ImageOptions(**options))) for options in choices}) == 2
    voxels = np.random.default_rng(0).integers(0, 200, (6, 7, 8)).astype(np.uint8)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "v.nii")
    assert len({listing_digest(list_images(tmp_path, ImageOptions(**options))) for options in choices}) == 4


def test_a_file_that_cannot_be_read_changes_the_digest(mixed):
    listing = list_images(mixed)
    before = listing_digest(listing)
    (mixed / "p03.png").unlink()
    assert listing_digest(listing) != before
