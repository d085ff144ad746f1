"""Which encoder of the package suits a set of images, by looking at some of them.

Encoders are trained on one kind of image, and say little about others. Each has a file ``NAME.domain.npz`` beside it:
the few directions that hold most of the thumbnails of the metric `pixel` of such images (their principal components,
uncentred). How much of a thumbnail lies in them, whichever way the image is flipped or turned by a right angle, is its
likeness to the kind; a set whose median likeness is high enough is of the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deepssim.embed import Encoder
from deepssim.errors import StoreError
from deepssim.images import Image, Listing, read_tasks
from deepssim.metric import DEFAULT_METRIC, Metric, installed_metrics, load_metric
from deepssim.store import Store

__all__ = [
    "AUTO",
    "SUFFIX",
    "Choice",
    "Domain",
    "choose_metric",
    "find_metric",
    "installed_domains",
    "likeness",
    "metric_of",
    "principal_directions",
    "sample",
    "thumbnails",
]

AUTO = "auto"
SUFFIX = ".domain.npz"
# Files that are looked into, and images taken of one of them.
N_FILES = 24
N_OF_A_FILE = 4

Pixels = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """A kind of image that an encoder was made for.

    Attributes:
        metric: Name of the encoder.
        kind: What it is, in words.
        directions: ``(k, dim)`` orthonormal rows in the space of the metric `pixel`.
        threshold: Median likeness from which on a set is of the kind.
    """

    metric: str
    kind: str
    directions: Floats
    threshold: float


@dataclass(frozen=True, slots=True)
class Choice:
    """An encoder, and why.

    Attributes:
        metric: Its name.
        reason: One line for a person.
        likeness: Median likeness to each known kind, by the name of its encoder.
    """

    metric: str
    reason: str
    likeness: dict[str, float]


def installed_domains() -> list[Domain]:
    """Return the kinds of image that an encoder of the package was made for."""
    folder = resources.files("deepssim") / "metrics"
    found = []
    for name in installed_metrics():
        entry = folder / f"{name}{SUFFIX}"
        if not entry.is_file():
            continue
        with resources.as_file(entry) as path, np.load(path, allow_pickle=False) as arrays:
            directions = arrays["directions"].astype(np.float64)
            found.append(Domain(name, str(arrays["kind"]), directions, float(arrays["threshold"])))
    return found


def thumbnails(images: Sequence[Pixels], encoder: Encoder) -> Floats:
    """Return the thumbnails of images in all eight flips and right turns, ``(n, 8, dim)``; zeros where flat."""
    seen = []
    for image in images:
        for turned in (image, image.T):
            seen += [turned, turned[::-1], turned[:, ::-1], turned[::-1, ::-1]]
    prepared = [encoder.prepare(np.ascontiguousarray(image)) for image in seen]
    rows = np.nan_to_num(encoder.encode(prepared).astype(np.float64), posinf=0.0, neginf=0.0)
    return rows.reshape(len(images), 8, -1)


def principal_directions(rows: Floats, n: int) -> Floats:
    """Return the directions that hold most of some thumbnails ``(m, dim)``, ``(n, dim)``, orthonormal.

    Example:
        >>> np.abs(principal_directions(np.array([[1.0, 0.0], [2.0, 0.0]]), 1)).tolist()
        [[1.0, 0.0]]
    """
    return np.asarray(np.linalg.svd(rows, full_matrices=False)[2][:n])


def likeness(thumbs: Floats, directions: Floats) -> Floats:
    """Return the likeness ``(n,)``, 0 to 1, of images with the thumbnails ``(n, 8, dim)``.

    Example:
        >>> likeness(np.full((1, 8, 2), np.sqrt(0.5)), np.array([[1.0, 0.0]])).round(3).tolist()
        [0.707]
    """
    return np.asarray(np.linalg.norm(thumbs @ directions.T, axis=2).max(axis=1))


def choose_metric(images: Sequence[Pixels], threads: int = 0) -> Choice:
    """Look at images and name the encoder to take.

    Args:
        images: Each ``(height, width)``, in any unit.
        threads: 0: all that this process may use.

    Returns:
        The encoder of the likeliest kind; the metric ``"pixel"`` where the images are of none, or there are none.
    """
    domains = installed_domains()
    if not domains or not images:
        why = "no image could be looked at" if domains else "no encoder is installed"
        return Choice(DEFAULT_METRIC, f"{DEFAULT_METRIC}: {why}", {})
    thumbs = thumbnails(images, Encoder(load_metric(DEFAULT_METRIC), device="cpu", threads=threads))
    found = {domain.metric: float(np.median(likeness(thumbs, domain.directions))) for domain in domains}
    said = ", ".join(f"{found[d.metric]:.2f} to {d.kind} (needed: {d.threshold:.2f})" for d in domains)
    fitting = [domain for domain in domains if found[domain.metric] >= domain.threshold]
    if not fitting:
        reason = f"{DEFAULT_METRIC}: {len(images)} images are like nothing that an encoder was made for: {said}"
        return Choice(DEFAULT_METRIC, reason, found)
    best = max(fitting, key=lambda domain: found[domain.metric])
    reason = f"{best.metric}, made for {best.kind}: {len(images)} images looked at, likeness {said}"
    return Choice(best.metric, reason, found)


def find_metric(
    asked: str,
    listing: Callable[[], Listing],
    *,
    stores: Sequence[Store] = (),
    threads: int | None = None,
    say: Callable[[str], None] | None = None,
) -> Metric:
    """Return the metric that was asked for: by its name, its file, a store that was made with it, or ``"auto"``.

    Args:
        asked: What the user wrote.
        listing: Gives the images of which `choose_metric` looks at some, from all over, for ``"auto"``.
        stores: Embeddings that are there already; ``"auto"`` is the metric that the first was made with.
        threads: Threads that decode.
        say: Told what was chosen, and why.

    Raises:
        UsageError: There is no such metric.
        StoreError: The metric of a store is none that comes with the package, or was another version of it.
    """
    if asked != AUTO and Store.is_store(Path(asked)):
        return metric_of(Store(Path(asked)))
    if asked != AUTO:
        return load_metric(asked)
    if stores:
        return metric_of(stores[0])
    choice = choose_metric(sample(listing(), threads), threads or 0)
    if say is not None:
        say(f"metric {choice.reason}")
    return load_metric(choice.metric)


def metric_of(store: Store) -> Metric:
    """Return the metric that a store was made with.

    Raises:
        StoreError: It is none that comes with the package, or was another version of it.
    """
    name = str(store.metric["name"])
    if name not in installed_metrics():
        raise StoreError(
            f"{store.path} was made with the metric {name}, which does not come with this package: give its .onnx file "
            "with --metric"
        )
    metric = load_metric(name)
    if metric.hash != store.metric["hash"]:
        raise StoreError(f"{store.path} was made by another version of the metric {name}: embed the images again")
    return metric


def sample(listing: Listing, threads: int | None = None) -> list[Pixels]:
    """Read some images, evenly over a listing; those that cannot be read are missing."""
    places = _spread(len(listing.tasks), N_FILES)
    few = replace(listing, tasks=[listing.tasks[place] for place in places])
    taken: list[Pixels] = []
    for result in read_tasks(few, threads=threads):
        images = [item.pixels for item in result.items if isinstance(item, Image)]
        chosen = _spread(len(images), N_OF_A_FILE)
        taken += [images[place] for place in chosen]
    return taken


def _spread(n: int, wanted: int) -> list[int]:
    """Return `wanted` of n places, evenly; all where there are not so many."""
    return sorted({round(place) for place in np.linspace(0, n - 1, wanted).tolist()}) if n else []
