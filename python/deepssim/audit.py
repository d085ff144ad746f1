"""The pipeline: real and synthetic images in, counted and judged copies out.

Synthetic images are embedded and searched chunk by chunk, so memory does not grow with their number. The
parts of a run are whole files in a work folder; tables and summary are made from them at the end and appear
under their names only when they are whole.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepssim import __version__
from deepssim.calibration import Calibration
from deepssim.control import draw_control
from deepssim.disk import LOCK, locked, make_private_folder, remove_leftovers, write_json
from deepssim.domain import AUTO
from deepssim.errors import UsageError
from deepssim.evidence import Verifier
from deepssim.images import Image, ImageOptions, ImageStream, list_images
from deepssim.inputs import (
    base_warnings,
    check_distinct,
    common_metric,
    metric_warnings,
    naming_warnings,
    reading_warnings,
    same_reading,
    size_warnings,
    unverifiable,
)
from deepssim.kept import DEFAULT_SAMPLE, check_free, remove_kept
from deepssim.matching import Control, Matcher, MatchOptions, Reference
from deepssim.parts import EVIDENCE_FIELDS, RealTally
from deepssim.pictures import remove_pairs, write_pairs
from deepssim.progress import Progress, Silent
from deepssim.results import Collector, Outcome
from deepssim.run_metric import RunMetric, thresholds_for
from deepssim.run_record import SearchRecord, Start, describe_store, is_run, write_run
from deepssim.screening import choose_views
from deepssim.sources import (
    Synthetic,
    SyntheticImages,
    SyntheticStore,
    WorkFolder,
    images_done,
    read_from_store,
    store_fingerprint,
)
from deepssim.store import Store, count_skipped
from deepssim.store_build import build_store
from deepssim.stream_source import SyntheticStream
from deepssim.tables import SKIPPED, TableStream, parquet_to_csv, write_table
from deepssim.trial import most_candidates, run_trial
from deepssim.verdict import SetCounts, screening_sentence, screening_warnings, summarize
from deepssim.working import WORKING_RULE

N_NEAREST_SHOWN = 6
OUR_STORES = ("real.store", "holdout.store")
OUR_RESULTS = (
    "summary.json",
    "run.json",
    "report.html",
    "report-shareable.html",
    "matches.csv",
    *(f"{name}.parquet" for name in ("matches", "leaks", "real_images", "patients", "skipped")),
)


@dataclass(frozen=True, slots=True)
class AuditOptions:
    """Everything that a run can be told, beside its inputs.

    Attributes:
        metric: Name of an installed metric, path of a bundle, or ``"auto"``: that of a store among the inputs, else the
            one that suits the real images by their looks (`deepssim.domain`). Of stores alone it has to be theirs.
        calibration: Thresholds of what decides: of the metric's scores, or of S1 and S2 where pairs are verified. None:
            those that come with the metric, or with the package.
        thresholds: The two values alone, (near, exact), instead of a calibration.
        verify: Whether the nearest pairs are registered and judged in image space; None: if every set has images.
        images: How real and holdout images are read.
        synthetic_images: How synthetic images are read.
        match: How they are matched.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        max_skipped: Share of inputs that may be left out before the run counts as incomplete.
        with_csv: Whether ``matches.csv`` is written too.
        keep: Images of a stream that are kept as a random sample, beside those that are flagged or nearest.
        command: Named in ``run.json``.
    """

    metric: str = AUTO
    calibration: Calibration | None = None
    thresholds: tuple[float, float] | None = None
    verify: bool | None = None
    images: ImageOptions = field(default_factory=ImageOptions)
    synthetic_images: ImageOptions = field(default_factory=ImageOptions)
    match: MatchOptions = field(default_factory=MatchOptions)
    device: str = "auto"
    max_skipped: float = 0.01
    with_csv: bool = False
    keep: int = DEFAULT_SAMPLE
    command: str = "audit"

    def as_dict(self) -> dict[str, Any]:
        """Return as in ``run.json``, where thresholds and command have places of their own."""
        return {
            "metric": self.metric,
            "device": self.device,
            "max_skipped": self.max_skipped,
            "verify": self.verify,
            **asdict(self.match),
            **{f"images.{k}": v for k, v in asdict(self.images).items()},
            **{f"synthetic_images.{k}": v for k, v in asdict(self.synthetic_images).items()},
        }


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What a run found.

    Attributes:
        folder: Where its files are.
        summary: The contents of ``summary.json``.
        too_many_skipped: Whether more inputs were left out than allowed.
    """

    folder: Path
    summary: dict[str, Any]
    too_many_skipped: bool

    @property
    def flagged_rate(self) -> float:
        """Share of synthetic images flagged as near or exact copies."""
        return float(self.summary["synthetic_flagged"]["rate"])


def audit(
    real: str | Path,
    synthetic: str | Path | ImageStream,
    out: str | Path,
    *,
    holdout: str | Path | None = None,
    options: AuditOptions | None = None,
    progress: Progress | None = None,
) -> AuditResult:
    """Find out which synthetic images copy which real ones.

    Args:
        real: Images that the generator was trained on: folder, file, manifest, or a store of them.
        synthetic: Images that it made, likewise; or a stream of them (`deepssim.images.open_stream`, or a sampler), of
            which ``images/`` in the folder keeps what is flagged, the nearest few and a sample.
        out: Folder of the results; made if missing, and continued if a run was cut short in it.
        holdout: Comparable real images that it never saw: the control.
        options: How; the defaults serve most.
        progress: Told where the run is.

    Raises:
        DeepSSIMError: With one line that says what to do.
    """
    path = Path(synthetic) if isinstance(synthetic, str | Path) else None
    check_distinct({"real": real, "synthetic": path, "holdout": holdout, "output": out})
    if path is None:
        check_free(Path(out))
    run = _Run(Path(out), options or AuditOptions(), progress or Silent())
    with locked(run.out):
        remove_leftovers(run.out)
        inputs = [Path(real), *([Path(holdout)] if holdout is not None else []), path]
        run.metric.choose(inputs, lambda: list_images(real, run.options.images), run.progress.status)
        real_store = run.real_store(Path(real), "real")
        holdout_store = run.real_store(Path(holdout), "holdout") if holdout is not None else None
        return run.finish(real_store, run.synthetic_side(synthetic), holdout_store)


def score(
    real: str | Path,
    synthetic: str | Path,
    out: str | Path,
    *,
    holdout: str | Path | None = None,
    options: AuditOptions | None = None,
    progress: Progress | None = None,
) -> AuditResult:
    """Do as `audit` does, from stores alone: no image is read but for the pictures of the worst pairs.

    Raises:
        StoreError: One of the folders is no whole store, two are of different metrics, or of another than was named.
    """
    check_distinct({"real": real, "synthetic": synthetic, "holdout": holdout, "output": out})
    run = _Run(Path(out), options or AuditOptions(command="score"), progress or Silent())
    with locked(run.out):
        remove_leftovers(run.out)
        # All are opened before one is read as a whole, which takes time.
        holdout_store = _given_store(holdout) if holdout is not None else None
        real_store, synthetic_store = _given_store(real), _given_store(synthetic)
        given = [store for store in (real_store, holdout_store, synthetic_store) if store is not None]
        run.metric.choose([store.path for store in given], lambda: list_images(real), run.progress.status)
        for store in given:
            store.verify()
        return run.finish(real_store, SyntheticStore(synthetic_store), holdout_store)


def _given_store(path: str | Path) -> Store:
    if not Store.is_store(Path(path)):
        raise UsageError(f"{path} is no store: make one with deepssim embed, or give the images to deepssim audit")
    return Store(Path(path))


def _verified(store: Store) -> Store:
    """Check every byte of a store that was given; one that this run made or reuses was checked by its maker."""
    store.verify()
    return store


class _Run:
    """One run into one folder."""

    def __init__(self, out: Path, options: AuditOptions, progress: Progress) -> None:
        if not 0 <= options.max_skipped <= 1:
            raise UsageError(f"the share of skipped inputs lies between 0 and 1, not {options.max_skipped}")
        if out.exists() and not out.is_dir():
            raise UsageError(f"{out} is a file: name a folder for the results")
        if out.is_dir() and any(p.name != LOCK for p in out.iterdir()) and not _is_ours(out):
            raise UsageError(f"{out} holds other files: name a new or an empty folder for the results")
        self.out, self.options, self.progress = make_private_folder(out.absolute()), options, progress
        self.start = Start.now()
        self.metric = RunMetric(self.options.metric, self.options.device, self.options.match.threads)

    def real_store(self, source: Path, name: str) -> Store:
        """Open a store, or make or reuse the one of these images in the results' folder."""
        if Store.is_store(source):
            return _verified(same_reading(Store(source), self.options.images))
        listing = list_images(source, self.options.images)
        with self.progress.track(f"{name} images", listing.n_expected) as advance:
            return build_store(
                listing,
                self.metric.encoder(),
                self.out / f"{name}.store",
                with_working=self.options.verify is not False,
                as_gallery=True,
                threads=self.options.match.threads or None,
                progress=advance,
                status=self.progress.status,
            )

    def synthetic_side(self, synthetic: str | Path | ImageStream) -> Synthetic:
        """Open a store, list images, or take a stream."""
        options, threads = self.options.synthetic_images, self.options.match.threads or None
        if not isinstance(synthetic, str | Path):
            return SyntheticStream(
                synthetic,
                self.metric.encoder(),
                self.out,
                n_sample=self.options.keep,
                max_pixels=options.max_pixels,
                threads=threads,
            )
        if Store.is_store(Path(synthetic)):
            return SyntheticStore(_verified(Store(Path(synthetic))))
        return SyntheticImages(list_images(synthetic, options), self.metric.encoder(), threads)

    def finish(self, real_store: Store, side: Synthetic, holdout_store: Store | None) -> AuditResult:
        """Match, collect, conclude, write."""
        options = self.options
        metric = common_metric(real_store, side, holdout_store, self.metric.loaded)
        layout = known.layout if (known := self.metric.of(real_store)) is not None else None
        views = choose_views(options.match.views, layout, str(metric["name"]))
        options = self.options = replace(options, match=replace(options.match, views=views))
        unverified = unverifiable(real_store, side, holdout_store, options.verify)
        calibration = thresholds_for(
            real_store, known, is_verified=not unverified, given=options.calibration, pair=options.thresholds,
            views=options.match.views,
        )  # fmt: skip
        real = Reference(real_store)
        holdout = Reference(holdout_store) if holdout_store is not None else None
        # A holdout of which no image could be used is reported, but compared with nothing.
        control = draw_control(real, holdout, options.match.seed) if holdout else None
        work = WorkFolder(self.out, self._fingerprint(real_store, side, holdout_store, calibration))
        self._drop_other_work(work, is_stream=isinstance(side, SyntheticStream))
        search, trial = self._match(real, control, calibration, side, work, layout)
        self.progress.status(f"writing tables of {work.rows:,} synthetic images")
        self._drop_results()
        outcome = self._collect(real, control, side, work)
        counts, too_many = self._write_skipped(real, side, holdout, outcome, work)
        warnings = [unverified] if unverified and options.verify is None else []
        warnings += base_warnings(real, calibration) + reading_warnings(real_store, side, holdout_store)
        warnings += metric_warnings(known, real_store, side, holdout_store, is_verified=not unverified)
        warnings += naming_warnings(side) + size_warnings(outcome)
        warnings += self._write_pairs(outcome, real, side) + screening_warnings(trial)
        summary = summarize(
            outcome,
            real,
            counts,
            calibration,
            {**metric, "dim": real_store.dim, "views": views},
            control,
            candidates=most_candidates(real, options.match),
            seed=options.match.seed,
            too_many_skipped=too_many,
            warnings=warnings,
            trial=trial,
        )
        if options.with_csv:
            parquet_to_csv(self.out / "matches.parquet", self.out / "matches.csv")
        side.publish(work)
        write_json(self.out / "summary.json", summary)
        write_run(
            self.out,
            self.start,
            search,
            command=options.command,
            provider=self.metric.loaded.provider if self.metric.loaded else None,
            inputs=self._describe_inputs(real_store, side, holdout_store, outcome.n_synthetic, work),
            options=options.as_dict(),
            thresholds=calibration.as_dict(),
            seed=options.match.seed,
        )
        shutil.rmtree(work.path, ignore_errors=True)
        return AuditResult(self.out, summary, too_many)

    def _match(
        self,
        real: Reference,
        control: Control | None,
        calibration: Calibration,
        side: Synthetic,
        work: WorkFolder,
        layout: tuple[int, int] | None,
    ) -> tuple[SearchRecord, dict[str, Any] | None]:
        """Write the parts that are missing, and try the screening; at the end no embedding of the sets is held."""
        options = self.options.match
        verifier = Verifier(calibration, options.threads) if calibration.stage == "verified" else None
        matcher = Matcher(real, control, calibration.cuts(), options, side.expected_rows, layout, verifier)
        side.match(matcher, work, self.progress)
        record = SearchRecord.of(matcher)
        if matcher.statistics.n_pairs:
            self.progress.status(record.sentence())
        trial = self._try_screening(matcher, work.rows) if verifier is not None else None
        for reference in (real, *(control.sets if control else ())):
            if reference.base is not None:
                reference.base.drop()  # its memory is not needed to write tables
        if work.rows == 0:
            raise UsageError(f"no image of {side.source} can be used: {_reasons(side.skipped(work))}")
        return record, trial

    def _try_screening(self, matcher: Matcher, n_synthetic: int) -> dict[str, Any] | None:
        """See how often screening finds the source of a copy; None where the metric is not at hand."""
        encoder, match = self.metric.encoder_of(matcher.real.store), self.options.match
        if encoder is None:
            return None
        trial = run_trial(matcher, encoder, expected_rows=n_synthetic, seed=match.seed).as_dict()
        self.progress.status(screening_sentence(trial))
        return trial

    def _fingerprint(
        self, real: Store, side: Synthetic, holdout: Store | None, calibration: Calibration
    ) -> dict[str, Any]:
        encoder = self.metric.loaded
        match = self.options.match
        return {
            "version": __version__,
            "real": store_fingerprint(real),
            "holdout": store_fingerprint(holdout) if holdout else None,
            "synthetic": side.fingerprint(),
            "metric": [encoder.metric.hash, encoder.runtime_version, encoder.provider] if encoder else None,
            "cuts": calibration.cuts(),
            "stage": [calibration.stage, WORKING_RULE, EVIDENCE_FIELDS],
            "match": [match.k, match.max_per_group, match.max_listed, match.seed, match.views],
        }

    def _drop_other_work(self, work: WorkFolder, *, is_stream: bool) -> None:
        """Remove what is left of runs with other inputs or options; not images of a stream, which cost more to make."""
        for other in self.out.glob(".work-*"):
            if other == work.path:
                continue
            n_done = images_done(other)
            if n_done and is_stream:
                work.discard_if_empty()
                raise UsageError(
                    f"{self.out} holds {n_done:,} images of a run with other inputs or options that was not finished: "
                    f"give those again, name another folder with --out, or remove {other.name} in it to start over"
                )
            if n_done:
                self.progress.status("inputs or options changed: starting over")
            shutil.rmtree(other, ignore_errors=True)

    def _drop_results(self) -> None:
        # Old results go before new ones come: a folder never mixes two runs.
        for name in OUR_RESULTS:
            (self.out / name).unlink(missing_ok=True)
        remove_pairs(self.out)
        remove_kept(self.out)

    def _collect(self, real: Reference, control: Control | None, side: Synthetic, work: WorkFolder) -> Outcome:
        tally = RealTally.empty(len(real))
        for part in work.parts():
            tally.add(part)
        collector = Collector(self.out, real, control, tally)
        outcome = collector.run(work.parts(), TableStream(side.records(work)))
        collector.write_real_images()
        if real.has_groups:
            collector.write_patients()
        return outcome

    def _write_skipped(
        self, real: Reference, side: Synthetic, holdout: Reference | None, outcome: Outcome, work: WorkFolder
    ) -> tuple[dict[str, SetCounts | None], bool]:
        sets = [
            ("real", real.store.skipped(), len(real), _known_groups(real)),
            ("synthetic", side.skipped(work), outcome.n_synthetic, None),
        ]
        if holdout is not None:
            sets.append(("holdout", holdout.store.skipped(), len(holdout), _known_groups(holdout)))
        counts: dict[str, SetCounts | None] = {"real": None, "synthetic": None, "holdout": None}
        tables, too_many = [], False
        for name, table, used, groups in sets:
            n_skipped = count_skipped(table)
            counts[name] = SetCounts(used, groups, n_skipped, table.num_rows - n_skipped)
            too_many = too_many or n_skipped > self.options.max_skipped * (used + n_skipped)
            tables.append(table.add_column(0, "set", pa.array([name] * table.num_rows, pa.string())))
        write_table(self.out / "skipped.parquet", pa.concat_tables(tables).cast(SKIPPED))
        return counts, too_many

    def _write_pairs(self, outcome: Outcome, real: Reference, side: Synthetic) -> list[str]:
        """Write the pictures of the worst pairs; returns warnings."""
        # People who are not concerned are shown only where nobody is, and few of them.
        pairs = [pair for pair in outcome.pairs if pair.level > 0] or outcome.pairs[:N_NEAREST_SHOWN]
        return write_pairs(self.out, pairs, real, _reader(real.store), side.read)

    def _describe_inputs(
        self, real: Store, side: Synthetic, holdout: Store | None, n_synthetic: int, work: WorkFolder
    ) -> dict[str, Any]:
        synthetic = {
            "source": side.source,
            "digest": side.digest(work),
            "images": n_synthetic,
            "group_by": self.options.synthetic_images.group_by,
            **side.facts(),
        }
        return {
            "real": describe_store(real),
            "synthetic": synthetic,
            "holdout": describe_store(holdout) if holdout is not None else None,
        }


def _is_ours(out: Path) -> bool:
    return any(Store.is_store(out / name) for name in OUR_STORES) or any(out.glob(".work-*")) or is_run(out)


def _known_groups(reference: Reference) -> int | None:
    return reference.n_groups if reference.has_groups else None


def _reader(store: Store) -> Callable[[str, str], Image]:
    return lambda path, image_id: read_from_store(store, path, image_id)


def _reasons(table: pa.Table) -> str:
    reasons = table["reason"].to_pylist()
    return f"{reasons[0]} (and {len(reasons) - 1:,} more)" if reasons else "there are none"
