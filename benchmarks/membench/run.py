"""Runs the benchmark: draws, answers, thresholds, figures."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from benchmarks.membench.bench import CONDITIONS, Bench, make_bench
from benchmarks.membench.bundles import ENCODER, IN_IMAGES, find_bundle, find_screen, published_cuts, verified_cuts
from benchmarks.membench.collection import Collection, read_collection
from benchmarks.membench.figures import Figure, label_figures, score_figures
from benchmarks.membench.systems import (
    Answers,
    Cuts,
    Floats,
    choose_cuts,
    from_evidence,
    from_scores,
    image_scores,
    metric_scores,
    nearest,
)
from benchmarks.membench.verified import Mask, Pixels, examine, to_bytes
from deepssim.matching import MatchOptions
from deepssim.metric import DEFAULT_METRIC, load_metric
from deepssim.perturb import ViewKind, apply_view, draw_view

SYSTEMS = ("ssim", DEFAULT_METRIC, "verifier", "pipeline")
# Every metric that comes with the package and the way that an audit goes, for the table that compares them.
SUMMARY_SYSTEMS = ("ssim", "fsim", "ums_l2", DEFAULT_METRIC, ENCODER, "pipeline")
TUNE = "tune"
# Whose images join the base of a split's benchmark as no one's source, with `Settings.with_distractors`.
DISTRACTORS = {"tune": ("train",), "test": ("train", "tune"), "train": ("tune",)}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What to run.

    Attributes:
        data: Folder of the images; not needed for phantoms.
        split: Whose figures are wanted; thresholds that are not installed come from the split ``tune``.
        seed: Of the draw.
        systems: ``ssim``, ``fsim``, ``verifier``, ``pipeline``, ``encoder`` (the installed metric of the domain), or
            the name or path of a metric.
        bundles: Path of the metric that a name among `systems` means, by ``NAME`` or ``NAME:DOMAIN``.
        screen: The metric that finds the candidates of ``pipeline``, likewise.
        k: How many candidates.
        max_per_person: At most so many of one person among them; 0: no cap.
        calibrations: Names of the calibrations of the stage verified; one that ends in ``.brain`` is for that domain.
        with_distractors: Whether images of people of other splits join the base (`DISTRACTORS`).
        perturb_both: Whether real images are perturbed too, in the condition perturbed.
        n_people: Of each split, the first so many; None: all.
        side: Shorter side of the images in pixels; None: as they are.
        threads: 0: all that this process may use.
        cache: Folder of evidence found before.
    """

    data: Path | None
    split: str = "test"
    seed: int = 0
    systems: tuple[str, ...] = SYSTEMS
    bundles: Mapping[str, str] = field(default_factory=dict)
    screen: str = DEFAULT_METRIC
    k: int = MatchOptions().k
    max_per_person: int = MatchOptions().max_per_group
    calibrations: tuple[str, ...] = ("verified",)
    with_distractors: bool = False
    perturb_both: bool = False
    n_people: int | None = None
    side: int | None = None
    threads: int = 0
    cache: Path | None = None


@dataclass(frozen=True)
class Draw:
    """A draw of the benchmark and its images as 8-bit files."""

    bench: Bench
    real: list[Pixels] = field(repr=False)
    synthetic: list[Pixels] = field(repr=False)


@dataclass(frozen=True)
class Row:
    """The figures of a system with one pair of thresholds.

    Attributes:
        domain: Kind of image.
        condition: How synthetic images are seen.
        system: What answered.
        cuts: Its thresholds.
        metric: The bundle that it is here; None: it needs none.
        n_real: Images in the base, distractors among them.
        n_distractors: Images in the base that nothing was copied from.
        found: Figures by name, as `figures.label_figures` and `figures.score_figures` give them.
    """

    domain: str
    condition: str
    system: str
    cuts: Cuts
    metric: str | None
    n_real: int
    n_distractors: int
    found: dict[str, Figure]


def read_people(settings: Settings, domain: str, splits: tuple[str, ...]) -> Collection:
    """Read a collection; of each split the first `Settings.n_people`."""
    parts = []
    for split in splits:
        whole = read_collection(settings.data, domain, {split}, side=settings.side)
        used = np.isin(whole.people, np.unique(whole.people)[: settings.n_people])
        images = [image for image, is_used in zip(whole.images, used, strict=True) if is_used]
        parts.append(Collection(domain, images, whole.people[used], whole.levels[used]))
    return Collection(
        domain,
        [image for part in parts for image in part.images],
        np.concatenate([part.people for part in parts]),
        np.concatenate([part.levels for part in parts]),
    )


def draw(settings: Settings, domain: str, condition: ViewKind, split: str) -> Draw:
    """Draw the benchmark of a split."""
    # Thresholds and figures of one split must not come from the same images.
    seed = settings.seed + (split == settings.split == TUNE)
    more = read_people(settings, domain, DISTRACTORS[split]) if settings.with_distractors else None
    bench = make_bench(read_people(settings, domain, (split,)), condition, seed=seed, distractors=more)
    if settings.perturb_both and condition == "perturbed":
        bench = perturb_base(bench, seed)
    return Draw(bench, [to_bytes(image) for image in bench.real], [to_bytes(image) for image in bench.synthetic])


def perturb_base(bench: Bench, seed: int) -> Bench:
    """Perturb the real images too, each by a draw of its own."""
    rng = np.random.default_rng([seed, len(CONDITIONS) + 1])
    moved = []
    for image in bench.real:
        height, width = image.shape
        moved.append(apply_view(image, draw_view(rng, "perturbed", size=(height, width))))
    return replace(bench, real=moved)


def answer(settings: Settings, drawn: Draw, say: Say, *, domain: str = "") -> list[Answers]:
    """Let every system answer that there is for a domain; a pair that two of them look at is registered once."""
    real, synthetic = drawn.real, drawn.synthetic
    answers = []

    @functools.cache  # a metric may be a system and the pipeline's screen: views of thousands of images take minutes
    def scores_of(name: str) -> Floats:
        return metric_scores(name, real, synthetic, threads=settings.threads)

    screen = find_screen(settings.screen, domain, settings.bundles)
    candidates: Mask | None = None
    if "pipeline" in settings.systems and screen is not None:
        candidates = nearest(scores_of(screen), settings.k, drawn.bench.real_people, settings.max_per_person)
    evidence = None
    if "verifier" in settings.systems or candidates is not None:
        wanted = None if "verifier" in settings.systems else candidates
        evidence = examine(real, synthetic, wanted, threads=settings.threads, cache=settings.cache, report=say)
    for system in settings.systems:
        bundle = find_bundle(system, domain, settings.bundles)
        if system in ("ssim", "fsim"):
            answers.append(from_scores(system, image_scores(system, real, synthetic, threads=settings.threads)))
        elif system == "verifier" and evidence is not None:
            answers.append(from_evidence(system, evidence))
        elif system == "pipeline":
            if evidence is not None and candidates is not None:
                answers.append(from_evidence(system, evidence, candidates))
        elif bundle is not None:
            answers.append(from_scores(system, scores_of(bundle)))
    return answers


def run(settings: Settings, domains: tuple[str, ...], conditions: tuple[ViewKind, ...], say: Say) -> list[Row]:
    """Run the benchmark.

    Raises:
        ValueError: There is no such domain or no data.
        DeepSSIMError: There is no such metric or calibration.
    """
    # What is missing is found here, before hours of work and not after.
    known = {domain: _known_cuts(settings, domain) for domain in domains}
    rows = []
    for domain in domains:
        for condition in conditions:
            where = f"{domain} {condition}"
            tuned = draw(settings, domain, condition, TUNE)
            say_tune = _named(say, f"{where}, {TUNE}")
            by_system = {a.system: a for a in answer(settings, tuned, say_tune, domain=domain)}
            drawn = draw(settings, domain, condition, settings.split)
            for answers in answer(settings, drawn, _named(say, f"{where}, {settings.split}"), domain=domain):
                bench = tuned.bench
                tune = choose_cuts(by_system[answers.system], bench.truth, bench.is_sibling, TUNE)
                metric, fixed = known[domain][answers.system]
                n_real, n_sources = len(drawn.real), int(drawn.bench.source.max()) + 1
                shown = f"{condition}, both" if settings.perturb_both and condition == "perturbed" else condition
                of_scores = score_figures(drawn.bench, answers)
                for cuts in (*fixed, tune):
                    found = label_figures(drawn.bench, answers, cuts) | of_scores
                    rows.append(Row(domain, shown, answers.system, cuts, metric, n_real, n_real - n_sources, found))
            say(f"{where}: done")
    return rows


def _known_cuts(settings: Settings, domain: str) -> dict[str, tuple[str | None, list[Cuts]]]:
    """Return of each system its metric, if it needs one, and thresholds that were chosen before."""
    known: dict[str, tuple[str | None, list[Cuts]]] = {}
    verified = verified_cuts(settings.calibrations, domain)
    for system in settings.systems:
        if system in IN_IMAGES:
            known[system] = None, verified if system in ("verifier", "pipeline") else []
            continue
        bundle = find_bundle(system, domain, settings.bundles)
        if bundle is not None:
            known[system] = load_metric(bundle).hash, published_cuts(system, bundle)
    screen = find_screen(settings.screen, domain, settings.bundles)
    if screen is not None:
        load_metric(screen)
    return known


def _named(say: Say, where: str) -> Say:
    return lambda text: say(f"{where}: {text}")
