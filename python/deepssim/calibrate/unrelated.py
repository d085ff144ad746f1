"""The nearest scores of unrelated images, found as an audit finds them: same screening, same verification, same k.

`control_scores` looks for generated images among people whom the generator never saw, `people_scores` for real images
among those of other people. Nothing of either can be a copy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deepssim.calibration import Calibration, Threshold
from deepssim.control import draw_by_group, draw_control
from deepssim.disk import work_folder
from deepssim.domain import AUTO
from deepssim.errors import MetricError, StoreError, UsageError
from deepssim.evidence import Verifier
from deepssim.images import ImageOptions, list_images
from deepssim.inputs import check_distinct, common_metric, reading_warnings, same_reading, unverifiable
from deepssim.matching import Matcher, MatchOptions, Reference, Subject
from deepssim.metric import l2_score
from deepssim.parts import Ints, Part
from deepssim.progress import Progress, Silent
from deepssim.run_metric import RunMetric, thresholds_for
from deepssim.screening import choose_views
from deepssim.sources import PART_IMAGES, Synthetic, SyntheticImages, SyntheticStore, WorkFolder, store_fingerprint
from deepssim.store import Store, count_skipped
from deepssim.store_build import build_store

__all__ = ["RunOptions", "UnrelatedScores", "control_scores", "people_scores"]

# No pair is listed or counted here, so no score reaches this.
_NEVER = float(np.finfo(np.float32).max)
MOST_FOLDS = 10


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How images are embedded, searched and verified; as `deepssim.audit.AuditOptions`.

    Attributes:
        metric: Name of an installed metric, path of a bundle, or ``"auto"``.
        like: Thresholds that the exact one is taken from; None: those that an audit would take.
        exact: The exact threshold itself, instead; of an L2 metric a distance.
        verify: Whether the nearest are judged in image space; None: if every set has images.
        images: How real and holdout images are read.
        synthetic_images: How synthetic images are read.
        match: How they are matched.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
    """

    metric: str = AUTO
    like: Calibration | None = None
    exact: float | None = None
    verify: bool | None = None
    images: ImageOptions = field(default_factory=ImageOptions)
    synthetic_images: ImageOptions = field(default_factory=ImageOptions)
    match: MatchOptions = field(default_factory=MatchOptions)
    device: str = "auto"


@dataclass(frozen=True, slots=True, eq=False)
class UnrelatedScores:
    """The nearest score of each unrelated image, and what it was found with.

    Attributes:
        values: ``(n,)`` the highest score, or the highest S1 of the candidates where pairs were verified.
        images: ``(n,)`` the person of each image, or its id where it has none.
        people: ``(n,)`` the person of its nearest image, or that image's id.
        n_people: People of the base; None: not known.
        base_size: Images of the base.
        metric: What the images were embedded with.
        similarity: Of the metric.
        views: How images were seen.
        stage: ``"embedding"`` or ``"verified"``.
        exact: The exact threshold, and where it comes from; None: there is none to take.
        how: How candidates were chosen, in a few words.
        warnings: What makes the scores doubtful.
    """

    values: NDArray[np.float64]
    images: NDArray[np.str_]
    people: NDArray[np.str_]
    n_people: int | None
    base_size: int
    metric: str
    similarity: str
    views: str
    stage: str
    exact: tuple[Threshold, str] | None
    how: str
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


def control_scores(
    synthetic: str | Path,
    holdout: str | Path,
    out: str | Path,
    *,
    real: str | Path | None = None,
    base_size: int | None = None,
    options: RunOptions | None = None,
    progress: Progress | None = None,
) -> UnrelatedScores:
    """Look for synthetic images among people whom the generator never saw.

    Args:
        synthetic: Images that the generator made: folder, file, manifest or store.
        holdout: Comparable real images that it never saw, likewise.
        out: File that is to be written: work under way lies beside it, and is gone at the end.
        real: What the generator was trained on; as many images are drawn of the holdout, by whole people. Beside their
            number, only whether they share people or images with the holdout is looked at.
        base_size: So many instead; None: as many as `real` has, or the whole holdout.
        options: How; the defaults are an audit's.
        progress: Told where it is.

    Raises:
        DeepSSIMError: With one line that says what to do.
    """
    check_distinct({"real": real, "synthetic": synthetic, "holdout": holdout, "output": out})
    if real is not None and base_size is not None:
        raise UsageError("give the real images or the size of the base, not both")
    run = _Run(options or RunOptions(), progress or Silent())
    inputs = [Path(path) for path in (real, holdout, synthetic) if path is not None]
    with _working(Path(out), "control", *map(str, inputs)) as work:
        run.choose(inputs)
        real_store = run.base_store(Path(real), work, "real") if real is not None else None
        store = run.base_store(Path(holdout), work, "holdout")
        side = run.side(Path(synthetic))
        given = [store] if real_store is None else [real_store, store]
        run.settle(given[0], side, store)
        reference, warnings = Reference(store), list(reading_warnings(given[0], side, store))
        base, more = _draw_base(reference, Reference(real_store) if real_store else None, base_size, run.seed)
        run.warn(warnings + more)
        parts = run.match(base, side, work)
        records = pa.concat_tables(side.records(parts)) if parts.rows else None
        skipped = side.skipped(parts)
        if records is None:
            raise UsageError(f"no image of {side.source} can be used; {count_skipped(skipped):,} were left out")
        run.warn_of_inputs(base, records, count_skipped(skipped))
        values, rows = _best(parts.parts())
        return run.found(values, _people_of(records), _names(base)[rows], base)


def people_scores(
    real: str | Path, out: str | Path, *, options: RunOptions | None = None, progress: Progress | None = None
) -> UnrelatedScores:
    """Look for the images of each person among those of all others.

    People are divided into at most ten parts; those of a part are searched for among all others.

    Args:
        real: Real images whose people are known: folder, file, manifest or store.
        out: File that is to be written: work under way lies beside it, and is gone at the end.
        options: How; the defaults are an audit's.
        progress: Told where it is.

    Raises:
        DeepSSIMError: With one line that says what to do.
    """
    check_distinct({"real": real, "output": out})
    run = _Run(options or RunOptions(), progress or Silent())
    with _working(Path(out), "real", str(real)) as work:
        run.choose([Path(real)])
        store = run.base_store(Path(real), work, "real")
        queries = run.query_store(Path(real), store, work)
        run.settle(store, SyntheticStore(queries), None)
        whole = Reference(store)
        if not whole.has_groups or whole.n_groups < 2:
            raise UsageError(
                f"real images are compared with those of other people, and {store.manifest['source']} "
                f"{'has one person' if whole.has_groups else 'does not say whose each image is'}: say who is who with "
                "a manifest (column group), --group-by parent or --group-by regex:PATTERN"
            )
        return _across_people(run, whole, queries)


def _across_people(run: _Run, whole: Reference, queries: Store) -> UnrelatedScores:
    records = queries.records(["id", "group", "height", "width"])
    owners = np.array(records["group"].to_pylist(), np.str_)
    everybody = np.random.default_rng(run.seed).permutation(np.unique(owners))
    n_folds = min(MOST_FOLDS, len(everybody))
    values = np.full(len(owners), -np.inf)
    nearest: list[str] = [""] * len(owners)
    base, sizes = whole, []
    names = np.array(whole.names, np.str_)[whole.codes]
    with run.progress.track("real images", len(owners)) as advance:
        for fold in range(n_folds):
            out_of_base = everybody[fold::n_folds]
            base = whole.subset(np.flatnonzero(~np.isin(names, out_of_base)))
            sizes.append(len(base))
            matcher, rows = run.matcher(base, len(owners)), np.flatnonzero(np.isin(owners, out_of_base))
            of_base = _names(base)
            for first in range(0, len(rows), PART_IMAGES):
                some = rows[first : first + PART_IMAGES]
                part = matcher.match_rows(queries.gather(some), 0, _subjects(queries, records, some, matcher))
                found, at = _best([part])
                values[some] = found
                for row, person in zip(some.tolist(), of_base[at].tolist(), strict=True):
                    nearest[row] = person
                advance(len(some))
    run.warnings.append(
        "Real images are not exchangeable with generated ones: a decoder's blur and noise shift scores, so the rate on "
        "generated images may be another. A holdout that the generator never saw (calibrate control) tells."
    )
    found_of_all = run.found(values, _people_of(records), np.array(nearest, np.str_), base)
    return replace(found_of_all, base_size=int(np.median(sizes)), n_people=whole.n_groups)


class _Run:
    """What the two have in common."""

    def __init__(self, options: RunOptions, progress: Progress) -> None:
        self.options, self.progress, self.seed = options, progress, options.match.seed
        self.metric = RunMetric(options.metric, options.device, options.match.threads)
        self.warnings: list[str] = []

    def choose(self, inputs: list[Path]) -> None:
        """Find the metric; the first input is looked at where it is to be found by looks."""
        self.metric.choose(inputs, lambda: list_images(inputs[0], self.options.images), self.progress.status)

    def base_store(self, source: Path, work: Path, name: str) -> Store:
        """Open a store of real images, or make one as an audit does."""
        if Store.is_store(source):
            store = same_reading(Store(source), self.options.images)
            store.verify()
            return store
        return self._embed(source, work / f"{name}.store", name, as_gallery=True)

    def query_store(self, source: Path, store: Store, work: Path) -> Store:
        """Return a store of the same images, embedded as synthetic ones are."""
        if "gallery" not in store.made_from:
            return store
        if Store.is_store(source):
            raise UsageError(
                f"{source} holds images that were embedded as a base is, and here they are searched for too: give the "
                f"images themselves ({store.manifest['source']})"
            )
        return self._embed(source, work / "queries.store", "real", as_gallery=False)

    def _embed(self, source: Path, path: Path, name: str, *, as_gallery: bool) -> Store:
        listing = list_images(source, self.options.images)
        with self.progress.track(f"{name} images", listing.n_expected) as advance:
            return build_store(
                listing,
                self.metric.encoder(),
                path,
                with_working=self.options.verify is not False,
                as_gallery=as_gallery,
                threads=self.options.match.threads or None,
                progress=advance,
                status=self.progress.status,
            )

    def side(self, source: Path) -> Synthetic:
        """Open the synthetic side."""
        if Store.is_store(source):
            store = Store(source)
            store.verify()
            return SyntheticStore(store)
        listing = list_images(source, self.options.synthetic_images)
        return SyntheticImages(listing, self.metric.encoder(), self.options.match.threads or None)

    def settle(self, real: Store, side: Synthetic, holdout: Store | None) -> None:
        """Decide on metric, views, stage and the thresholds to be like."""
        options = self.options
        described = common_metric(real, side, holdout, self.metric.loaded)
        self.name, self.similarity = str(described["name"]), str(described["similarity"])
        known = self.metric.of(real)
        self.layout = known.layout if known is not None else None
        self.views = choose_views(options.match.views, self.layout, self.name)
        unverified = unverifiable(real, side, holdout, options.verify)
        if unverified and options.verify is None:
            self.warnings.append(unverified)
        self.stage = "embedding" if unverified else "verified"
        self.like: Calibration | None
        try:
            self.like = thresholds_for(
                real, known, is_verified=not unverified, given=options.like, pair=None, views=self.views
            )
        except (StoreError, MetricError):
            self.like = None  # only the exact threshold is taken from it

    def warn(self, warnings: list[str]) -> None:
        """Keep warnings for the end."""
        self.warnings += warnings

    def warn_of_inputs(self, base: Reference, records: pa.Table, n_skipped: int) -> None:
        """Say what is odd about the images themselves."""
        hashes = pc.unique(base.table["pixel_hash"].combine_chunks())
        known = hashes.filter(pc.not_equal(hashes, ""))
        n_same = int(pc.sum(pc.is_in(records["pixel_hash"], value_set=known)).as_py() or 0)
        if n_same:
            self.warnings.append(
                f"{n_same:,} synthetic images are identical to holdout images in every pixel: they are no unrelated "
                "images, and the threshold is too high until they are taken out."
            )
        if n_skipped:
            self.warnings.append(f"{n_skipped:,} synthetic images could not be used.")

    def matcher(self, base: Reference, expected_rows: int) -> Matcher:
        """Return what matches against a base."""
        verifier = Verifier(_verified(self.like), self.options.match.threads) if self.stage == "verified" else None
        match = self.options.match
        options = MatchOptions(
            match.k, match.max_per_group, 1, match.threads, match.memory_limit, match.seed, views=self.views
        )
        return Matcher(base, None, (_NEVER, _NEVER), options, expected_rows, self.layout, verifier)

    def match(self, base: Reference, side: Synthetic, work: Path) -> WorkFolder:
        """Match the synthetic side against a base, part by part."""
        match, encoder = self.options.match, self.metric.loaded
        parts = WorkFolder(
            work,
            {
                "base": [store_fingerprint(base.store), hashlib.sha256(base.rows.tobytes()).hexdigest()],
                "synthetic": side.fingerprint(),
                "metric": [encoder.metric.hash, encoder.runtime_version, encoder.provider] if encoder else None,
                "match": [self.stage, match.k, match.max_per_group, self.views],
            },
        )
        side.match(self.matcher(base, side.expected_rows), parts, self.progress)
        return parts

    def found(
        self, values: NDArray[np.float64], images: NDArray[np.str_], people: NDArray[np.str_], base: Reference
    ) -> UnrelatedScores:
        """Put together what was found."""
        exact: tuple[Threshold, str] | None = None
        if self.options.exact is not None:
            value = l2_score(self.options.exact) if self.similarity == "l2" and self.stage == "embedding" else None
            exact = Threshold(self.options.exact if value is None else value), "given by the user"
        elif self.like is not None:
            exact = self.like.exact, self.like.source
        match = self.options.match
        chosen = (
            f"the best of {match.k} candidates by {self.name} ({match.max_per_group or 'any number'} of a person at "
            "most), registered and judged in image space"
            if self.stage == "verified"
            else f"the highest score of {self.name}"
        )
        n_people = base.n_groups if base.has_groups else None
        return UnrelatedScores(
            values, images, people, n_people, len(base), self.name, self.similarity, self.views, self.stage, exact,
            chosen, tuple(self.warnings),
        )  # fmt: skip


def _verified(like: Calibration | None) -> Calibration:
    # Thresholds of this stage come with the package, so there always are some; none of them decides here.
    if like is None or like.stage != "verified":
        raise MetricError("there are no thresholds of verification to begin with: name some with --like")
    return like


def _draw_base(
    holdout: Reference, real: Reference | None, base_size: int | None, seed: int
) -> tuple[Reference, list[str]]:
    """Draw the base of whole people, and say what makes it no base of the size wanted."""
    warnings: list[str] = []
    wanted = base_size
    if real is not None:
        warnings += draw_control(real, holdout, seed).warnings
        wanted = len(real)
    if wanted is None:
        return holdout, warnings
    if wanted > len(holdout):
        warnings.append(
            f"The holdout has {len(holdout):,} images and the base is to have {wanted:,}: the rate is that against "
            f"{len(holdout):,}, and the nearest of more images scores higher (by about .01 with each doubling for "
            "thumbnails of brains and chests), so more unrelated images pass."
        )
    if wanted >= len(holdout):
        return holdout, warnings
    if not holdout.has_groups:
        warnings.append("Without the patient of every holdout image, the base is drawn by image.")
    return holdout.subset(draw_by_group(holdout.codes, wanted, seed)), warnings


def _best(parts: Iterator[Part] | list[Part]) -> tuple[NDArray[np.float64], Ints]:
    """Return the value of each image's best pair and its position in the base."""
    values, rows = [], []
    for part in parts:
        values.append(part.values[:, 0].astype(np.float64))
        rows.append(part.rows[:, 0])
    return np.concatenate(values), np.concatenate(rows)


def _names(reference: Reference) -> NDArray[np.str_]:
    """Return the person of each image of a set, or the image's id where there is none."""
    return _people_of(reference.table)


def _people_of(table: pa.Table) -> NDArray[np.str_]:
    pairs = zip(table["group"].to_pylist(), table["id"].to_pylist(), strict=True)
    # No person is called like an image.
    return np.array([f"image {image}" if group is None else f"person {group}" for group, image in pairs], np.str_)


def _subjects(store: Store, records: pa.Table, rows: Ints, matcher: Matcher) -> list[Subject]:
    sizes = records.select(["height", "width"]).take(pa.array(rows)).to_pylist()
    return [
        Subject(size["height"] or 0, size["width"] or 0, store.working_image(row) if matcher.verifier else None)
        for size, row in zip(sizes, rows.tolist(), strict=True)
    ]


@contextmanager
def _working(out: Path, *what: str) -> Iterator[Path]:
    """Hold a folder beside the file to be written; a kill leaves it for the next run to go on."""
    out = out.absolute()
    if out.is_dir():
        raise UsageError(f"{out} is a folder: name a file for the calibration")
    if not out.parent.is_dir():
        raise UsageError(f"the folder {out.parent} does not exist: make it, or name another for the calibration")
    text = json.dumps(what).encode("utf-8", "surrogateescape")
    with work_folder(out, hashlib.sha256(text).hexdigest()[:16]) as work:
        yield work
