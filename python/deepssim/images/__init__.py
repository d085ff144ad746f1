"""Images: list the files of a source, read them, and check them.

`list_images` finds the files and gives every image its id and its group (its patient), `read_tasks` decodes
them in parallel and in order, and `read_image` reads one again by its id. Whatever cannot be used comes back
as a `Skipped` with a code and a reason; nothing is dropped in silence and no bad file ends a run.
"""

from __future__ import annotations

from deepssim.images.formats import READER_VERSION, decoder_versions
from deepssim.images.incoming import ByteImageStream, image_of, open_stream
from deepssim.images.listing import list_images
from deepssim.images.stream import listing_digest, listing_signature, read_image, read_tasks
from deepssim.images.types import (
    COUNTED_CODES,
    SKIP_CODES,
    FileEntry,
    Image,
    ImageOptions,
    ImageStream,
    Listing,
    ReadTask,
    Skipped,
    TaskResult,
)

__all__ = [
    "COUNTED_CODES",
    "READER_VERSION",
    "SKIP_CODES",
    "ByteImageStream",
    "FileEntry",
    "Image",
    "ImageOptions",
    "ImageStream",
    "Listing",
    "ReadTask",
    "Skipped",
    "TaskResult",
    "decoder_versions",
    "image_of",
    "list_images",
    "listing_digest",
    "listing_signature",
    "open_stream",
    "read_image",
    "read_tasks",
]
