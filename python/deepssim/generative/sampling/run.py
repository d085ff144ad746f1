"""The run of a generator: a plan's images, made by a backend, into a sink or an audit."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deepssim.errors import UsageError
from deepssim.generative.sampling.plan import Plan, file_name
from deepssim.generative.sampling.sampler import Backend, Request, check_sampling, sample
from deepssim.generative.sampling.settings import Settings
from deepssim.generative.sampling.sinks import FolderSink, Sink
from deepssim.images import Image, Skipped, image_of
from deepssim.progress import Progress, Silent

if TYPE_CHECKING:
    from deepssim.generative.data.records import Record

__all__ = [
    "INTENSITIES",
    "GenerateOptions",
    "Generated",
    "GeneratedStream",
    "generate",
    "settings_of",
    "to_bytes",
    "to_unit",
    "write_training_images",
]

INTENSITIES = ("clip", "min-max")
"""How the values of an image become grey: see `to_unit`."""

_WHITE = np.float32(255)


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """How images are made of noise.

    Attributes:
        steps: Of DDIM sampling.
        guidance: Weight of the condition; 1: as it is.
        seed: With record and number, what the noise is drawn by.
        intensity: One of `INTENSITIES`.
        transpose: Whether rows and columns are swapped as images are written, for a model that was trained on swapped
            ones.

    Raises:
        UsageError: An unknown intensity.
    """

    steps: int = 50
    guidance: float = 1.0
    seed: int = 0
    intensity: str = "clip"
    transpose: bool = False

    def __post_init__(self) -> None:
        """Check what has a list of values."""
        if self.intensity not in INTENSITIES:
            raise UsageError(f"the intensity {self.intensity!r} is unknown: {' or '.join(INTENSITIES)}")


@dataclass(frozen=True, slots=True)
class Generated:
    """What a run did.

    Attributes:
        source: Where the images are.
        n_made: Images that this run made.
        n_there: Images that were there before it.
        seconds: That making and writing took.
    """

    source: str
    n_made: int
    n_there: int
    seconds: float


def generate(
    plan: Plan,
    backend: Backend,
    sink: Sink,
    options: GenerateOptions | None = None,
    *,
    noted: dict[str, Any] | None = None,
    training: Callable[[FolderSink], None] | None = None,
    progress: Progress | None = None,
) -> Generated:
    """Make the images of a plan that a sink does not have.

    Args:
        plan: What is asked for.
        backend: The model.
        sink: Where images go; is closed at the end, whatever happens.
        options: How they are made.
        noted: What else the record of the run says, JSON.
        training: Called with a folder that is ready, before the first image is made.
        progress: Told of images, batch by batch.

    Raises:
        UsageError: The sink holds something else, or the model cannot do what is asked for.
        MetricError: An image is not finite.
        ReaderEndedError: Nobody reads any more.
    """
    options, progress = options or GenerateOptions(), progress or Silent()
    check_sampling(backend.facts, steps=options.steps, guidance=options.guidance)
    started = time.monotonic()
    settings = settings_of(plan, backend, options, dtype=str(sink.dtype), noted=noted)
    grey = to_bytes if sink.dtype == np.uint8 else to_unit
    try:
        n_there = sink.begin(plan, settings)
        if training is not None and isinstance(sink, FolderSink):
            training(sink)
        if n_there:
            progress.status(f"{n_there:,} of {len(plan):,} images are there already")
        n_made = n_told = 0
        with progress.track("images", len(plan) - n_there) as advance:
            for place, image in _made(plan, backend, options, sink.missing()):
                sink.write(place, grey(image, options.intensity))
                n_made += 1
                # Images come by batches: a rate after the first of one would be far too low.
                if (place + 1) % backend.batch == 0 or n_made == len(plan) - n_there:
                    advance(n_made - n_told)
                    n_told = n_made
        sink.finish()
    finally:
        sink.close()
    return Generated(sink.source, n_made, n_there, time.monotonic() - started)


def settings_of(
    plan: Plan, backend: Backend, options: GenerateOptions, *, dtype: str = "uint8", noted: dict[str, Any] | None = None
) -> Settings:
    """Return all that the pixels of a run's images depend on."""
    image = {
        "model": backend.facts.fingerprint, "size": list(backend.facts.shapes.image), "seed": options.seed,
        "steps": options.steps, "guidance": options.guidance, "intensity": options.intensity, "dtype": dtype,
        "transpose": options.transpose, "batch": backend.batch, "backend": backend.name, "device": backend.device,
    }  # fmt: skip
    return Settings(image, plan.describe(), noted or {})


def to_unit(image: NDArray[np.float32], intensity: str) -> NDArray[np.float32]:
    """Bring an image to 0 to 1.

    Args:
        image: As a decoder makes it.
        intensity: ``"clip"``: values are grey as they are, and what lies outside 0 to 1 is cut off. ``"min-max"``: each
            image is stretched from its darkest to its brightest value, as the reference implementation does; an image
            of one value is black.

    Example:
        >>> to_unit(np.array([[-0.5, 0.5]], np.float32), "clip").tolist()
        [[0.0, 0.5]]
        >>> to_unit(np.array([[-0.5, 0.5]], np.float32), "min-max").tolist()
        [[0.0, 1.0]]
    """
    if intensity == "clip":
        return np.clip(image, np.float32(0), np.float32(1))
    low, high = image.min(), image.max()
    if low == high:
        return np.zeros_like(image)
    return np.asarray((image - low) / (high - low), np.float32)


def to_bytes(image: NDArray[np.float32], intensity: str) -> NDArray[np.uint8]:
    """Bring an image to 8-bit grey: `to_unit` times 255, rounded; with ``"min-max"`` cut off, as in the reference.

    Args:
        image: As a decoder makes it.
        intensity: As of `to_unit`.

    Example:
        >>> to_bytes(np.array([[0, 0.5, 1]], np.float32), "clip").tolist()
        [[0, 128, 255]]
        >>> to_bytes(np.array([[0, 0.5, 1]], np.float32), "min-max").tolist()
        [[0, 127, 255]]
    """
    if intensity == "clip":
        return np.asarray(np.rint(_WHITE * to_unit(image, intensity)), np.uint8)
    low, high = image.min(), image.max()
    if low == high:
        return np.zeros(image.shape, np.uint8)
    # In this order there, and the last bit of a quotient decides between two greys.
    return np.asarray(_WHITE * (image - low) / (high - low), np.uint8)


def write_training_images(
    sink: FolderSink,
    records: Iterable[Record],
    load: Callable[[Sequence[Record]], NDArray[np.float32]],
    options: GenerateOptions,
    progress: Progress,
) -> None:
    """Write the real image of each record beside those that will be made for it, where it is not there yet.

    Args:
        sink: A folder that is ready.
        records: Whose images.
        load: Makes ``(n, height, width)`` from 0 to 1 of records: `deepssim.generative.data.records.load_images`.
        options: How grey values are written; rows and columns are as in the file.
        progress: Told of each image.

    Raises:
        UsageError: An image cannot be read.
    """
    lacking = [record for record in records if sink.lacks_training(record.uid)]
    if not lacking:
        return
    with progress.track("training images", len(lacking)) as advance:
        for record in lacking:
            (image,) = load([record])
            sink.write_training(record.uid, to_bytes(image, options.intensity))
            advance(1)


class GeneratedStream:
    """Images for an audit as they are made, as `deepssim.images.ImageStream` wants them; none is kept here.

    Pixels are the 8-bit grey that a file would hold, so an audit of the files finds the same.

    Args:
        plan: What is made.
        backend: The model.
        options: How.

    Raises:
        UsageError: The model cannot do what is asked for.
    """

    def __init__(self, plan: Plan, backend: Backend, options: GenerateOptions | None = None) -> None:
        self._plan, self._backend, self._options = plan, backend, options or GenerateOptions()
        check_sampling(backend.facts, steps=self._options.steps, guidance=self._options.guidance)

    @property
    def source(self) -> str:
        """Name of the model, by its weights."""
        return f"generated by {self._backend.facts.fingerprint[:12]}"

    @property
    def n_expected(self) -> int:
        """Images of the plan that are wanted."""
        return len(self._plan)

    @property
    def is_seekable(self) -> bool:
        """Each image can be made without the others."""
        return True

    def images(self, first: int = 0) -> Iterator[Image | Skipped]:
        """Make images from the given place of the plan on; those before it are not made.

        Args:
            first: Images that are known already.
        """
        for place, made in _made(self._plan, self._backend, self._options, iter(self._plan.wanted()[first:])):
            request = self._plan.request(place)
            name = file_name(request.uid, request.number)
            yield image_of(name, to_bytes(made, self._options.intensity))

    def signature(self) -> dict[str, Any]:
        """Return all that the images depend on: what a run that was cut short must have had too."""
        settings = settings_of(self._plan, self._backend, self._options)
        return {"image": settings.image, "plan": settings.plan}


def _made(
    plan: Plan, backend: Backend, options: GenerateOptions, places: Iterator[int]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the images of places, in order."""
    waiting: deque[int] = deque()

    def requests() -> Iterator[Request]:
        for place in places:
            waiting.append(place)
            yield plan.request(place)

    made = sample(backend, requests(), steps=options.steps, guidance=options.guidance, seed=options.seed)
    for image in made:
        yield waiting.popleft(), np.ascontiguousarray(image.T) if options.transpose else image
