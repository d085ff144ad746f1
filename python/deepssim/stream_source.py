"""A synthetic side that comes as a stream: seen once, checked when it is given again, and kept in part."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepssim.embed import Encoder
from deepssim.embed_stream import EmbeddedChunk, embed_images
from deepssim.errors import StreamError, UsageError
from deepssim.images import Image, ImageStream, Skipped
from deepssim.images.text import one_line
from deepssim.kept import FOLDER, KeptImages
from deepssim.matching import Matcher, Subject
from deepssim.parts import Part
from deepssim.progress import Progress
from deepssim.sources import PART_IMAGES, WorkFolder
from deepssim.store import record_table, skipped_table
from deepssim.working import Working

__all__ = ["EXPECTED_IMAGES", "SyntheticStream"]

EXPECTED_IMAGES = 100_000
"""Images that a plan takes for granted where a stream does not say how many will come. More of them make more
preparation of the real set worth while, which takes time once; no answer and no memory limit depends on it."""


class SyntheticStream:
    """Images that are embedded and matched as they come.

    Args:
        stream: What comes.
        encoder: The metric.
        out: Folder of the results, where `publish` leaves the kept images.
        n_sample: Images of the random sample among them.
        max_pixels: Of one image.
        threads: None: one for each processor that this process may use.
    """

    def __init__(
        self, stream: ImageStream, encoder: Encoder, out: Path, *, n_sample: int, max_pixels: int, threads: int | None
    ) -> None:
        self.stream, self.encoder, self.out, self.threads = stream, encoder, out, threads
        self.n_sample, self.max_pixels = n_sample, max_pixels
        self.source = stream.source
        self._kept: KeptImages | None = None
        self._n_kept = 0

    @property
    def expected_rows(self) -> int:
        """What the stream promises, or `EXPECTED_IMAGES`."""
        return self.stream.n_expected or EXPECTED_IMAGES

    def fingerprint(self) -> dict[str, Any]:
        """Return what is known before the first image, and how many are kept."""
        return {"source": self.source, "stream": self.stream.signature(), "sample": self.n_sample}

    def options(self) -> dict[str, str] | None:
        """Return None: how volumes were cut is not the stream's to say."""
        return None

    def match(self, matcher: Matcher, work: WorkFolder, progress: Progress) -> None:
        """Embed and match what was not seen before.

        Raises:
            StreamError: The stream broke off; what came before is kept, and a run with the same stream goes on.
            UsageError: This is another stream than the one that was begun with.
        """
        kept = self._kept = self._open_kept(work)
        seen = work.last("images_seen")
        chain = _Chain(self._from(work, progress), work.entries[-1]["digest"] if work.entries else "")
        with progress.track("synthetic images", self.stream.n_expected) as advance:
            advance(seen)
            try:
                for chunk in embed_images(
                    chain,
                    self.encoder,
                    first=seen,
                    chunk_rows=min(matcher.chunk_rows, PART_IMAGES),
                    with_working=matcher.verifier is not None,
                    threads=self.threads,
                    progress=advance,
                ):
                    self._add(chunk, chain.digest, matcher, work, kept)
            except StreamError as error:
                raise StreamError(f"{error}; {_how_to_go_on(work.last('images_seen'))}") from error
        self._n_kept = kept.drop_others(self._answers(work))

    def _open_kept(self, work: WorkFolder) -> KeptImages:
        """Open the kept images of the parts that are done; they are still beside the parts, or published already."""
        folder, published = work.path / FOLDER, self.out / FOLDER
        if work.entries and not folder.exists() and published.exists():
            published.rename(folder)
        kept = KeptImages(folder, self.n_sample, max_pixels=self.max_pixels)
        for part, records in self._answers(work):
            kept.choose(part, records)
        return kept

    def _from(self, work: WorkFolder, progress: Progress) -> Iterator[Image | Skipped]:
        """Return the images that come after those of the parts that are done."""
        seen = work.last("images_seen")
        if self.stream.is_seekable or not seen:
            if seen:
                progress.status(f"continuing after {seen:,} synthetic images")
            return self.stream.images(seen)
        progress.status(f"continuing: the first {seen:,} images of the stream are compared with what is done")
        images = self.stream.images(0)
        with progress.track("compared images", seen) as advance:
            self._compare(images, work, advance)
        return images

    def _compare(self, images: Iterator[Image | Skipped], work: WorkFolder, advance: Any) -> None:
        chain = _Chain(images, "")
        places = [0, *(int(entry["images_seen"]) for entry in work.entries)]
        try:
            for (start, stop), entry in zip(pairwise(places), work.entries, strict=True):
                for number in range(start, stop):
                    if next(chain, None) is None:
                        raise UsageError(f"{self.source} ends after image {number:,}; {self._is_another(work)}")
                    advance(1)
                if chain.digest != entry["digest"]:
                    raise UsageError(
                        f"{self.source} differs from the stream of the earlier run between its images {start + 1:,} "
                        f"and {stop:,}; {self._is_another(work)}"
                    )
        except StreamError as error:
            raise StreamError(f"{error}; {_how_to_go_on(work.last('images_seen'))}") from error

    def _is_another(self, work: WorkFolder) -> str:
        return (
            f"{one_line(str(self.out))} holds {work.last('images_seen'):,} images of another: give that stream again "
            f"from its beginning, name another folder with --out, or remove {work.path.name} in it to start over"
        )

    def _add(self, chunk: EmbeddedChunk, digest: str, matcher: Matcher, work: WorkFolder, kept: KeptImages) -> None:
        working: list[Working] | list[None] = chunk.working or [None] * len(chunk.records)
        subjects = [
            Subject(record.height, record.width, image) for record, image in zip(chunk.records, working, strict=True)
        ]
        part = matcher.match_rows(chunk.embeddings, work.rows, subjects)
        # Files first: a part that counts has all of its own.
        for i in kept.choose(part, record_table(chunk.records, part.first_row)):
            kept.write(chunk.records[i].id, chunk.pixels[i])
        work.add(part, {"images_seen": chunk.next_task, "digest": digest}, chunk)

    def _answers(self, work: WorkFolder) -> Iterator[tuple[Part, pa.Table]]:
        return zip(work.parts(), work.tables("records"), strict=True)

    def records(self, work: WorkFolder) -> Iterator[pa.Table]:
        """Yield the records that lie beside the parts."""
        return work.tables("records")

    def skipped(self, work: WorkFolder) -> pa.Table:
        """Return what reading left out."""
        return pa.concat_tables([skipped_table([]), *work.tables("skipped")])

    def digest(self, work: WorkFolder) -> str:
        """Return the digest of all ids and pixels, in order."""
        return str(work.entries[-1]["digest"]) if work.entries else ""

    def read(self, path: str, image_id: str) -> Image:
        """Read one of the kept images again.

        Raises:
            ImageError: It was not kept.
        """
        if self._kept is None:
            raise UsageError("nothing of the stream was read yet")
        return self._kept.read(path, image_id)

    def facts(self) -> dict[str, Any]:
        """Return what the record of a run says more of a stream."""
        return {"stream": self.stream.signature(), "kept_images": self._n_kept, "sample": self.n_sample}

    def publish(self, work: WorkFolder) -> None:
        """Move the kept images to the results, which hold none of an earlier run any more."""
        (work.path / FOLDER).rename(self.out / FOLDER)


class _Chain:
    """Images on their way, with a digest of all that passed: it does not depend on how they are cut into parts.

    Args:
        images: What comes.
        digest: Of what passed before.
    """

    def __init__(self, images: Iterator[Image | Skipped], digest: str) -> None:
        self._images, self.digest = images, digest

    def __iter__(self) -> _Chain:
        return self

    def __next__(self) -> Image | Skipped:
        item = next(self._images)
        what = item.code if isinstance(item, Skipped) else item.pixel_hash
        line = f"{self.digest}\n{len(item.id)}\n{item.id}\n{what}"
        self.digest = hashlib.sha256(line.encode("utf-8", "surrogateescape")).hexdigest()
        return item


def _how_to_go_on(n_done: int) -> str:
    if not n_done:
        return "nothing of it was kept"
    return f"its first {n_done:,} images are done: the same command goes on after them when it is given the same stream"
