"""Scores of labelled pairs made of the images themselves: pixel against pixel, registered, or by an encoder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from deepssim.calibration import Calibration, installed_calibrations, load_calibration
from deepssim.embed import NORM_TOLERANCE, Encoder
from deepssim.errors import DeepSSIMError, UsageError
from deepssim.evidence import Verifier
from deepssim.image_ops import byte_grey, is_byte_image, map_on_threads, resize_area, similarity_pairs
from deepssim.images import ImageOptions, list_images, read_image
from deepssim.images.text import one_line, some
from deepssim.labelled.pairs import LabelledPairs, find_keys
from deepssim.labelled.scores import PairScores, default_calibration, perturbed_condition
from deepssim.matching import Reference, Subject
from deepssim.metric import installed_metrics, load_metric
from deepssim.parts import S1, S2
from deepssim.perturbed import perturb_by_id
from deepssim.progress import Progress, Silent
from deepssim.reference import file_of
from deepssim.search import exact_scores
from deepssim.working import Working, working_image

__all__ = ["IN_PLACE", "ImagePairs"]

InPlaceKind = Literal["ssim", "fsim", "ncc"]
IN_PLACE: tuple[str, ...] = get_args(InPlaceKind)
_VERIFIED = "verified"
_LEAST_SIDE = {"ssim": 7, "fsim": 2, "ncc": 1}
_BLOCK_PAIRS = 512
_BLOCK_IMAGES = 256
_MEMORY_BYTES = 2**28
_SHOWN = 10
_SLICES = "; a slice of a volume is written PATH#axial40 (or #coronal, #sagittal)"

Pixels = NDArray[np.float32]
Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of a folder, and which image of it."""

    path: str
    id: str


class _Side:
    """The images of one side of the pairs, each once."""

    def __init__(self, keys: Sequence[str], folder: Path, options: ImageOptions, seed: int | None) -> None:
        self.folder, self.options, self.seed = folder, options, seed
        unique = dict.fromkeys(keys)
        self.keys = list(unique)
        number = {key: k for k, key in enumerate(self.keys)}
        self.of_pair: Places = np.array([number[key] for key in keys], np.int64)
        self.files: list[_Found] = []

    def read(self, place: int) -> Pixels:
        """Read one image, as its condition shows it."""
        file = self.files[place]
        pixels = read_image(self.folder, file.path, file.id, self.options).pixels
        return pixels if self.seed is None else perturb_by_id(pixels, file.id, self.seed)


class ImagePairs:
    """Labelled pairs whose images lie in a folder.

    Args:
        pairs: The list.
        folder: What its keys are relative to.
        options: How images are read.
        perturb_seed: Show synthetic images perturbed, by draws of this seed; None: as they are.
        perturb_both: Show real ones perturbed too.
        size: Rows and columns that images are brought to for "ssim", "fsim" and "ncc"; None: they must have one size.
        threads: 0: all that this process may use.
        progress: Told of what is done.

    Raises:
        UsageError: The folder or images are not there; all are named.
    """

    def __init__(
        self, pairs: LabelledPairs, folder: Path, *, options: ImageOptions | None = None,
        perturb_seed: int | None = None, perturb_both: bool = False, size: tuple[int, int] | None = None,
        threads: int = 0, progress: Progress | None = None,
    ) -> None:  # fmt: skip
        if not folder.is_dir():
            raise UsageError(f"the folder of images {folder} does not exist")
        self.pairs, self.folder, self.size, self.threads = pairs, folder, size, threads
        self.progress = progress or Silent()
        options = options or ImageOptions()
        self.real = _Side(pairs.real_keys, folder, options, perturb_seed if perturb_both else None)
        self.synthetic = _Side(pairs.synthetic_keys, folder, options, perturb_seed)
        self._find_files()
        self.condition = perturbed_condition(self.real.seed, self.synthetic.seed)

    def _find_files(self) -> None:
        keys = list(dict.fromkeys([*self.real.keys, *self.synthetic.keys]))
        known = {key: self._direct(key) for key in keys}
        missing = [key for key, file in known.items() if file is None]
        if missing:
            # Keys of the reference implementation tell nothing of suffixes.
            names = [file.path for file in list_images(self.folder, self.real.options).files]
            places = find_keys(missing, names, f"the folder {self.folder}")
            known |= {key: _Found(names[k], names[k]) for key, k in zip(missing, places, strict=True)}
        for side in (self.real, self.synthetic):
            side.files = [file for key in side.keys if (file := known[key]) is not None]

    def _direct(self, key: str) -> _Found | None:
        stack, mark, _ = key.rpartition("#")
        if mark and (self.folder / stack).is_file():
            return _Found(stack, key)
        try:
            path = file_of(key)
        except UsageError:  # it leads out of the folder, so it is not in it
            return None
        return _Found(path, path) if (self.folder / path).is_file() else None

    def check(self, metrics: Sequence[str]) -> None:
        """Refuse metrics that there are none of, before any is run.

        Raises:
            UsageError: Some are unknown; all are named.
            MetricError: A bundle cannot be read.
        """
        verified = [one for one in installed_calibrations() if one.partition(".")[0] == _VERIFIED]
        known = [*IN_PLACE, *verified, *installed_metrics()]
        unknown = [metric for metric in metrics if metric not in known and not metric.endswith(".onnx")]
        if unknown:
            raise UsageError(
                f"unknown metric {', '.join(map(repr, unknown))}: there are {', '.join(known)}, and bundles (.onnx)"
            )
        for metric in metrics:
            if metric.endswith(".onnx"):
                load_metric(metric)

    def scores(self, metric: str, *, device: str = "auto") -> PairScores:
        """Score every pair.

        Args:
            metric: "ssim" (z-scored images, range of the real one), "fsim", "ncc": pixel against pixel as they lie.
                "verified", "verified.brain" and so on: S1, with S2 beside it, of the registered images. Else an
                installed metric or a bundle (``.onnx``); the real image is seen as an audit sees it.
            device: Where an encoder runs.

        Raises:
            UsageError: Images cannot be read or compared, or the metric is unknown.
            MetricError: A bundle cannot be read or run.
        """
        self.check([metric])
        similarity = "cosine"
        if metric in IN_PLACE:
            scores, detail, calibration = self._in_place(cast(InPlaceKind, metric)), None, default_calibration(metric)
        elif metric.partition(".")[0] == _VERIFIED:
            calibration = load_calibration(metric)
            scores, detail = self._verified(calibration)
        else:
            bundle = load_metric(metric)
            detail, calibration = None, default_calibration(bundle.name, bundle)
            scores, metric = self._embedded(Encoder(bundle, device=device, threads=self.threads)), bundle.name
            similarity = bundle.similarity
        return PairScores(metric, scores, calibration, detail, self.condition, similarity)

    def _blocks(self, what: str, *, by_synthetic: bool = False) -> Iterator[Places]:
        """Yield places of pairs, those that share an image together."""
        first, second = self.real.of_pair, self.synthetic.of_pair
        order = np.lexsort((first, second) if by_synthetic else (second, first))
        with self.progress.track(what, len(order)) as advance:
            for start in range(0, len(order), _BLOCK_PAIRS):
                chosen = order[start : start + _BLOCK_PAIRS]
                yield chosen
                advance(len(chosen))

    def _read(self, side: _Side, places: Sequence[int], then: Callable[[Pixels], Any]) -> list[Any]:
        def read(place: int) -> Any:
            try:
                return then(side.read(place))
            except DeepSSIMError:
                return None

        found = map_on_threads(read, places, self.threads)
        if any(item is None for item in found):
            self._name_unreadable()
        return found

    def _name_unreadable(self) -> None:
        """Read every image, and name those that cannot be."""

        def reason(item: tuple[_Side, int]) -> str | None:
            side, place = item
            try:
                side.read(place)
            except DeepSSIMError as error:
                return f"{side.files[place].path}: {error}"
            return None

        everything = [(side, place) for side in (self.real, self.synthetic) for place in range(len(side.keys))]
        reasons = list(dict.fromkeys(filter(None, map_on_threads(reason, everything, self.threads))))
        shown = "; ".join(one_line(text) for text in reasons[:_SHOWN])
        more = f" and {len(reasons) - _SHOWN:,} more" if len(reasons) > _SHOWN else ""
        raise UsageError(
            f"{len(reasons):,} images of {self.folder} cannot be used: {shown}{more}; put them right, or take their "
            f"pairs out of the list{_SLICES if any('names no slice' in text for text in reasons) else ''}"
        )

    def _in_place(self, kind: InPlaceKind) -> NDArray[np.float64]:
        out = np.empty(len(self.pairs), np.float64)
        for chosen in self._blocks(f"pairs by {kind}"):
            a, i = np.unique(self.real.of_pair[chosen], return_inverse=True)
            b, j = np.unique(self.synthetic.of_pair[chosen], return_inverse=True)
            real = self._read(self.real, a.tolist(), lambda pixels: self._sized(kind, pixels))
            synthetic = self._read(self.synthetic, b.tolist(), lambda pixels: self._sized(kind, pixels))
            self._check_sizes(kind, real, a, synthetic, b)
            rules: dict[str, Any] = {"with_z_score": True} if kind == "ssim" else {}
            try:
                out[chosen] = similarity_pairs(
                    kind, np.stack(real), np.stack(synthetic), np.stack([i, j], axis=1).astype(np.int64),
                    threads=self.threads, **rules,
                )  # fmt: skip
            except ValueError as error:
                raise UsageError(f"{kind} of the images of {self.folder}: {error}") from error
        return out

    def _sized(self, kind: str, pixels: Pixels) -> Pixels:
        if kind == "fsim" and not is_byte_image(pixels):
            pixels = byte_grey(pixels)
        return pixels if self.size is None or pixels.shape == self.size else resize_area(pixels, *self.size)

    def _check_sizes(
        self, kind: str, real: Sequence[Pixels], a: Places, synthetic: Sequence[Pixels], b: Places
    ) -> None:
        names = [side.files[k].path for side, places in ((self.real, a), (self.synthetic, b)) for k in places.tolist()]
        sizes: dict[tuple[int, int], str] = {}
        for name, image in zip(names, [*real, *synthetic], strict=True):
            sizes.setdefault((image.shape[0], image.shape[1]), name)
        if len(sizes) > 1:
            (size, first), (other, second) = list(sizes.items())[:2]
            raise UsageError(
                f"'{one_line(second)}' has {other[0]} x {other[1]} pixels (rows x columns), but '{one_line(first)}' "
                f"has {size[0]} x {size[1]}: give --resize {size[0]}x{size[1]} (or another size) for {kind}"
            )
        (size,) = sizes
        if min(size) < _LEAST_SIDE[kind]:
            least = _LEAST_SIDE[kind]
            raise UsageError(f"images of {size[0]} x {size[1]} pixels are too small for {kind}, {least} x {least} are "
                             "needed: give a larger --resize")  # fmt: skip

    def _verified(self, calibration: Calibration) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        verifier = Verifier(calibration, self.threads)
        s1, s2 = np.empty((2, len(self.pairs)), np.float64)
        for chosen in self._blocks("pairs registered", by_synthetic=True):
            a, i = np.unique(self.real.of_pair[chosen], return_inverse=True)
            b, j = np.unique(self.synthetic.of_pair[chosen], return_inverse=True)
            gallery = _Gallery(self._read(self.real, a.tolist(), working_image))
            subjects = self._read(self.synthetic, b.tolist(), _subject)
            # Pairs of one synthetic image side by side: (its number, its how many-th pair).
            order = np.argsort(j, kind="stable")
            counts = np.bincount(j, minlength=len(b))
            rank = np.empty(len(j), np.int64)
            rank[order] = np.arange(len(j)) - np.repeat(np.cumsum(counts) - counts, counts)
            rows = np.full((len(b), int(counts.max())), -1, np.int64)
            rows[j, rank] = i
            evidence = verifier.examine(subjects, rows, cast(Reference, gallery))
            s1[chosen], s2[chosen] = evidence[j, rank, S1], evidence[j, rank, S2]
        return s1, s2

    def _embedded(self, encoder: Encoder) -> NDArray[np.float64]:
        out = np.empty(len(self.pairs), np.float64)
        with tempfile.TemporaryDirectory(prefix="deepssim-") as folder:
            real = self._embed(self.real, encoder, Path(folder, "real.bin"), is_gallery=True)
            synthetic = self._embed(self.synthetic, encoder, Path(folder, "synthetic.bin"), is_gallery=False)
            order = np.lexsort((self.synthetic.of_pair, self.real.of_pair))
            for start in range(0, len(order), _BLOCK_PAIRS):
                chosen = order[start : start + _BLOCK_PAIRS]
                out[chosen] = exact_scores(real[self.real.of_pair[chosen]], synthetic[self.synthetic.of_pair[chosen]])
            del real, synthetic
        return out

    def _embed(self, side: _Side, encoder: Encoder, file: Path, *, is_gallery: bool) -> Pixels:
        """Embed the images of a side; where memory should not hold that, into a file."""
        shape = (len(side.keys), encoder.metric.dim)
        out: Pixels = (
            np.empty(shape, np.float32)
            if 4 * shape[0] * shape[1] <= _MEMORY_BYTES
            else np.memmap(file, np.float32, "w+", shape=shape)
        )
        encode = encoder.encode_gallery if is_gallery else encoder.encode
        flat: list[str] = []
        what = f"{'real' if is_gallery else 'synthetic'} images by {encoder.metric.name}"
        with self.progress.track(what, shape[0]) as advance:
            for start in range(0, shape[0], _BLOCK_IMAGES):
                places = range(start, min(start + _BLOCK_IMAGES, shape[0]))
                found = encode(self._read(side, places, encoder.prepare)).astype(np.float64)
                with np.errstate(over="ignore", invalid="ignore"):
                    norms = np.linalg.norm(found, axis=1)
                good = np.abs(norms - 1) <= NORM_TOLERANCE  # False for NaN
                flat += [side.files[k].path for k, is_good in zip(places, good.tolist(), strict=True) if not is_good]
                with np.errstate(divide="ignore", invalid="ignore"):
                    out[start : start + len(places)] = found / norms[:, np.newaxis]
                advance(len(places))
        if flat:
            raise UsageError(
                f"the metric {encoder.metric.name} sees no structure in {len(flat):,} images: {some(flat, _SHOWN)}; "
                "take their pairs out of the list"
            )
        return out


def _subject(pixels: Pixels) -> Subject:
    return Subject(pixels.shape[0], pixels.shape[1], working_image(pixels))


class _Gallery:
    """Working images in the place of a `Reference`: what `Verifier.examine` uses of one."""

    def __init__(self, images: Sequence[Working]) -> None:
        self.store, self.rows, self.images = self, np.arange(len(images)), images

    def working_image(self, row: int) -> Working:
        return self.images[row]
