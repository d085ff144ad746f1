"""Sinks: whole images or none, the same bytes after every kind of end, and nothing of others touched."""

from __future__ import annotations

import errno
import io
import os
import tarfile

import numpy as np
import pytest
from PIL import Image

from deepssim.errors import UsageError
from deepssim.generative.sampling.plan import plan_free, plan_records
from deepssim.generative.sampling.png import png_bytes
from deepssim.generative.sampling.run import GenerateOptions, generate, settings_of
from deepssim.generative.sampling.sinks import FileSink, FolderSink, PipeSink, ReaderEndedError
from deepssim.generative.sampling.streams import NpyStream, TarStream

OPTIONS = GenerateOptions(steps=2)
PLAN = plan_records(["p1", "p/2"], 3)
SIZE = (8, 6)


def stream_of(kind):
    return TarStream() if kind == "tar" else NpyStream(SIZE, kind)


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


@pytest.mark.parametrize("shape", [(1, 1), (7, 5), (136, 112), (0, 3)])
def test_png_holds_every_pixel(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    if not pixels.size:
        assert png_bytes(pixels)[-8:-4] == b"IEND"
        return
    with Image.open(io.BytesIO(png_bytes(pixels))) as image:
        assert image.mode == "L"
        image.load()
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_a_folder_is_laid_out_as_the_reference_does(backend, tmp_path):
    out = tmp_path / "new" / "out"
    done = generate(PLAN, backend, FolderSink(out), OPTIONS)
    assert (done.n_made, done.n_there) == (6, 0)
    assert sorted(files_of(out)) == [f"{uid}/gen-{i}.png" for uid in ("p%2F2", "p1") for i in range(3)]
    assert (out / "run.json").is_file()


def test_a_folder_is_filled_up_with_the_same_bytes(backend, tmp_path):
    generate(PLAN, backend, FolderSink(tmp_path), OPTIONS)
    whole = files_of(tmp_path)
    (tmp_path / "p1" / "gen-1.png").unlink()
    cut = tmp_path / "p1" / "gen-2.png"
    cut.write_bytes(cut.read_bytes()[:-5])
    (tmp_path / "p%2F2" / "gen-0.png").write_bytes(b"")
    (tmp_path / "p1" / ".gen-0.png.0123456789ab.partial").write_bytes(b"half")
    kept = tmp_path / "p1" / "gen-0.png"
    before = kept.stat().st_mtime_ns, kept.stat().st_ino
    done = generate(PLAN, backend, FolderSink(tmp_path), OPTIONS)
    assert (done.n_made, done.n_there) == (3, 3)
    assert files_of(tmp_path) == whole
    assert (kept.stat().st_mtime_ns, kept.stat().st_ino) == before
    assert not list(tmp_path.rglob("*.partial"))


def test_a_folder_grows_and_images_made_alone_are_the_same(backend, tmp_path):
    for name, plan in (("all", PLAN), ("few", PLAN.narrowed(["p/2/1"])), ("more", plan_records(["p1", "p/2"], 2))):
        generate(plan, backend, FolderSink(tmp_path / name), OPTIONS)
    everything = files_of(tmp_path / "all")
    assert files_of(tmp_path / "few") == {"p%2F2/gen-1.png": everything["p%2F2/gen-1.png"]}
    generate(PLAN, backend, FolderSink(tmp_path / "more"), OPTIONS)
    assert files_of(tmp_path / "more") == everything


def test_a_folder_grows_beyond_its_first_record_of_images_that_belong_to_none(backend, tmp_path):
    generate(plan_free(2), backend, FolderSink(tmp_path), OPTIONS)
    more = FolderSink(tmp_path)
    assert more.begin(plan_free(2500), settings_of(plan_free(2500), backend, OPTIONS)) == 2
    more.close()


def test_other_settings_are_refused_with_all_that_differs(make, tmp_path):
    generate(PLAN, make(), FolderSink(tmp_path), OPTIONS)
    before = files_of(tmp_path)
    other = GenerateOptions(steps=3, seed=1, intensity="min-max")
    with pytest.raises(UsageError) as refused:
        generate(PLAN, make(fingerprint="0" * 64, batch=2), FolderSink(tmp_path), other)
    text = str(refused.value)
    for part in ("ffffffffffff there, 000000000000", "seed: 0 there, 1", "steps: 2 there, 3", "batch size: 4 there, 2"):
        assert part in text
    assert "intensity: clip there, min-max" in text
    with pytest.raises(UsageError, match="records or their conditions"):
        generate(plan_records(["p1", "p3"], 3), make(), FolderSink(tmp_path), OPTIONS)
    assert files_of(tmp_path) == before


def test_a_folder_that_holds_other_files_is_refused_and_left_alone(backend, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match=r"mine.txt.*name an empty or a new folder"):
        generate(PLAN, backend, FolderSink(tmp_path), OPTIONS)
    (tmp_path / "run.json").write_text('{"format": "deepssim-run", "version": 1}')
    with pytest.raises(UsageError, match=r"is not a deepssim-generated file.*name another place"):
        generate(PLAN, backend, FolderSink(tmp_path), OPTIONS)
    assert (tmp_path / "mine.txt").read_text() == "x"
    assert not list(tmp_path.rglob("*.png"))


def test_what_the_model_cannot_do_is_refused_before_anything_is_written(backend, tmp_path):
    for options in (GenerateOptions(steps=2000), GenerateOptions(guidance=2.0)):
        with pytest.raises(UsageError):
            generate(PLAN, backend, FolderSink(tmp_path / "out"), options)
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_stopped_before_its_first_image_binds_nobody(backend, tmp_path):
    from dataclasses import replace

    def stop(latents):
        raise KeyboardInterrupt

    for sink in (FolderSink(tmp_path / "f"), FileSink(tmp_path / "a.tar", TarStream())):
        with pytest.raises(KeyboardInterrupt):
            generate(PLAN, replace(backend, decode=stop), sink, GenerateOptions(steps=3))
    (tmp_path / "a.tar.partial").unlink()
    for sink in (FolderSink(tmp_path / "f"), FileSink(tmp_path / "a.tar", TarStream())):
        assert generate(PLAN, backend, sink, OPTIONS).n_made == 6


def test_two_runs_do_not_write_to_one_place(backend, tmp_path):
    for sink, other in (
        (FolderSink(tmp_path / "a"), FolderSink(tmp_path / "a")),
        (FileSink(tmp_path / "a.tar", TarStream()), FileSink(tmp_path / "a.tar", TarStream())),
    ):

        def intrude(latents, sink=other):
            with pytest.raises(UsageError, match="another run is writing"):
                generate(PLAN, backend, sink, OPTIONS)
            return backend.decode(latents)

        from dataclasses import replace

        assert generate(PLAN, replace(backend, decode=intrude), sink, OPTIONS).n_made == 6


@pytest.mark.parametrize("kind", ["tar", "uint8", "float32"])
def test_a_file_cut_at_any_byte_comes_out_the_same(backend, tmp_path, kind):
    suffix = "tar" if kind == "tar" else "npy"
    path, partial = tmp_path / f"a.{suffix}", tmp_path / f"a.{suffix}.partial"
    generate(PLAN, backend, FileSink(path, stream_of(kind)), OPTIONS)
    whole = path.read_bytes()
    step = max(1, len(whole) // 9)
    for end in [*range(0, len(whole), step), 100, len(whole) - 1, len(whole)]:
        path.unlink(missing_ok=True)
        # After the cut, in an archive, what a power failure may leave: zeros where bytes should be.
        partial.write_bytes(whole[:end] + bytes(end % 3 if kind == "tar" else 0))
        done = generate(PLAN, backend, FileSink(path, stream_of(kind)), OPTIONS)
        assert path.read_bytes() == whole
        assert done.n_made + done.n_there == 6
        assert not partial.exists()
    assert generate(PLAN, backend, FileSink(path, stream_of(kind)), OPTIONS).n_made == 0


def test_archive_stack_folder_and_pipe_hold_the_same_images(backend, tmp_path):
    generate(PLAN, backend, FolderSink(tmp_path / "f"), OPTIONS)
    pipe = io.BytesIO()
    generate(PLAN, backend, PipeSink(pipe, TarStream()), OPTIONS)
    for name in ("tar", "npy"):
        kind = "tar" if name == "tar" else "uint8"
        generate(PLAN, backend, FileSink(tmp_path / f"a.{name}", stream_of(kind)), OPTIONS)
    assert pipe.getvalue() == (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}
    assert members == files_of(tmp_path / "f")
    stack = np.load(tmp_path / "a.npy")
    assert stack.shape == (6, *SIZE)
    with Image.open(tmp_path / "f" / "p%2F2" / "gen-0.png") as image:
        np.testing.assert_array_equal(np.asarray(image), stack[3])


def test_a_name_that_is_too_long_for_a_plain_header_comes_out_of_the_archive(backend, tmp_path):
    plan = plan_records(["x" * 190, "é" * 200], 2)
    path = tmp_path / "a.tar"
    generate(plan, backend, FileSink(path, TarStream()), OPTIONS)
    whole = path.read_bytes()
    path.unlink()
    (tmp_path / "a.tar.partial").write_bytes(whole[:-1500])
    assert generate(plan, backend, FileSink(path, TarStream()), OPTIONS).n_there == 3
    assert path.read_bytes() == whole
    with tarfile.open(path) as archive:
        assert archive.getnames()[0] == f"{'x' * 190}/gen-0.png"


def test_files_of_others_are_refused_and_left_alone(backend, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="not from a run of this command"):
        generate(PLAN, backend, FileSink(path, TarStream()), OPTIONS)
    assert path.read_bytes() == b"mine"
    generate(PLAN, backend, FileSink(tmp_path / "b.tar", TarStream()), OPTIONS)
    with pytest.raises(UsageError, match="images of a record: 3 there, 4 asked for; images: 6 there, 8 asked for"):
        generate(plan_records(["p1", "p/2"], 4), backend, FileSink(tmp_path / "b.tar", TarStream()), OPTIONS)


def test_a_place_where_nothing_can_be_written_is_refused(backend, tmp_path):
    (tmp_path / "file").write_text("")
    for sink in (FolderSink(tmp_path / "file"), FolderSink(tmp_path / "file" / "x"),
                 FileSink(tmp_path / "file" / "a.tar", TarStream())):  # fmt: skip
        with pytest.raises(UsageError, match="cannot make the folder"):
            generate(PLAN, backend, sink, OPTIONS)
    (tmp_path / "b.tar").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        generate(PLAN, backend, FileSink(tmp_path / "b.tar", TarStream()), OPTIONS)


def test_a_full_disk_is_told_with_the_name_of_the_file(backend, tmp_path, monkeypatch):
    class Full(io.RawIOBase):
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

    def full(descriptor, *args, **options):
        os.close(descriptor)
        return Full()

    for sink, name in ((FolderSink(tmp_path / "f"), "gen-0.png"), (PipeSink(Full(), TarStream()), "stdout")):
        monkeypatch.setattr("deepssim.generative.sampling.sinks.os.fdopen", full)
        with pytest.raises(OSError, match="No space") as caught:
            generate(PLAN, backend, sink, OPTIONS)
        monkeypatch.undo()
        assert str(caught.value.filename).endswith(name)
    assert not list((tmp_path / "f").rglob("*.partial"))
    assert generate(PLAN, backend, FolderSink(tmp_path / "f"), OPTIONS).n_made == 6


def test_a_reader_that_ends_early_is_one_line_that_says_how_far_it_came(backend):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as pipe, pytest.raises(ReaderEndedError, match=r"sent 0 of 5,000"):
        generate(plan_free(5000), backend, PipeSink(pipe, TarStream()), OPTIONS)
