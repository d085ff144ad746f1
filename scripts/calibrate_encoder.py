"""Choose the thresholds of an encoder's cosine, for runs that verify nothing (``--no-verify``).

    python scripts/calibrate_encoder.py brain --data DATA --write python/deepssim/metrics
    python scripts/calibrate_encoder.py brain --data DATA --evaluate
    python scripts/calibrate_encoder.py both --metric ums_l2 --in-place --data DATA --write python/deepssim/metrics

Benchmarks with known truth are drawn of the people of ``tune`` (those of ``train`` shaped the weights), in all three
conditions and several divisions into sources and strangers; images of ``train`` join the base as no one's source, so
that it has the size of a small study. *Near*: the lowest cosine that at most 1 % of the images of strangers reach over
the base, in no condition more; *exact*: the best balanced accuracy of exact against near copies. ``--evaluate`` rates
the installed thresholds on the people of ``test``, who had no part in anything. A metric that is for no domain of its
own has a calibration for each (NAME.brain, NAME.chest) and one for both, with the stricter near threshold.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.membench.bench import CONDITIONS
from benchmarks.membench.run import Settings, draw
from benchmarks.membench.systems import metric_scores
from benchmarks.membench.thresholds import FALSE_POSITIVE_SHARE, exact_cut, shared_near_cut

from deepssim.calibration import Calibration, Threshold, load_calibration
from deepssim.evaluate import EXACT, NEAR, UNRELATED
from deepssim.metric import load_metric
from deepssim.statistics import wilson_interval

KINDS = {"brain": "T1-weighted brain MRI, axial slices", "chest": "frontal chest X-ray"}
BOTH = "both"
N_DRAWS = 5
# Decimals of a threshold; of a distance the scores that decide lie close together.
DECIMALS = {"cosine": 3, "correlation": 3, "l2": 4}

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Highest cosines of one condition over all draws, by class; siblings are left out."""

    by_class: dict[int, Scores]
    base_size: int


def measure(
    metric: str, data: Path, domain: str, split: str, seed: int, threads: int, conditions: Sequence[str] = CONDITIONS
) -> dict[str, Sample]:
    """Draw and score benchmarks, by condition; of both domains by domain and condition."""
    if domain == BOTH:
        each = {name: measure(metric, data, name, split, seed, threads, conditions) for name in KINDS}
        return {f"{name}, {condition}": one for name, some in each.items() for condition, one in some.items()}
    found = {}
    for condition in conditions:
        parts: dict[int, list[Scores]] = {EXACT: [], NEAR: [], UNRELATED: []}
        sizes = []
        for k in range(N_DRAWS):
            settings = Settings(data, split=split, seed=seed + k, with_distractors=True, threads=threads)
            made = draw(settings, domain, condition, split)
            scores = metric_scores(metric, made.real, made.synthetic, threads=threads)
            for kind, values in parts.items():
                chosen = (made.bench.truth == kind) & ~made.bench.is_sibling
                values.append(scores[chosen].max(axis=1).astype(np.float64))
            sizes.append(len(made.real))
        found[condition] = Sample({kind: np.concatenate(v) for kind, v in parts.items()}, round(float(np.mean(sizes))))
    return found


def describe(samples: dict[str, Sample], near: float, exact: float) -> None:
    """Print what part of each class passes the thresholds."""
    sys.stdout.write(f"near >= {near:.5g}, exact >= {exact:.5g}\n")
    sys.stdout.write(
        "| condition | base | exact copies flagged | near copies flagged | called exact, of exact / of near | "
        "strangers flagged |\n|---|---|---|---|---|---|\n"
    )
    for condition, sample in samples.items():
        rates = {kind: (values >= near).mean() for kind, values in sample.by_class.items()}
        called = [(sample.by_class[kind] >= exact).mean() for kind in (EXACT, NEAR)]
        strangers = sample.by_class[UNRELATED]
        low, high = wilson_interval(int((strangers >= near).sum()), len(strangers))
        sys.stdout.write(
            f"| {condition} | {sample.base_size} | {rates[EXACT]:.3f} | {rates[NEAR]:.3f} | {called[0]:.3f} / "
            f"{called[1]:.3f} | {rates[UNRELATED]:.4f} of {len(strangers)} ({low:.4f} to {high:.4f}) |\n"
        )


def main() -> None:
    """Choose and write thresholds, or rate those that are installed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("domain", choices=[*sorted(KINDS), BOTH])
    parser.add_argument("--metric", help="bundle to calibrate; default: the installed encoder of the domain")
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv, brain/ and cxr/")
    parser.add_argument("--write", type=Path, help="folder to write the calibration into: python/deepssim/metrics")
    parser.add_argument("--evaluate", action="store_true", help="rate the installed thresholds on the split test")
    parser.add_argument(
        "--in-place", action="store_true", help="of images as they lie: for a metric that sees no other"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    if options.domain == BOTH and options.metric is None:
        parser.error("both domains have no encoder in common: name one with --metric")
    metric = load_metric(options.metric or options.domain)
    name = metric.name if options.domain in (metric.name, BOTH) else f"{metric.name}.{options.domain}"
    split, conditions = "test" if options.evaluate else "tune", CONDITIONS[:1] if options.in_place else CONDITIONS
    decimals = DECIMALS[metric.similarity]
    samples = measure(str(metric.path), options.data, options.domain, split, options.seed, options.threads, conditions)
    if options.evaluate:
        describe(samples, *load_calibration(name).cuts())
        return
    copies = {c: np.concatenate([s.by_class[EXACT], s.by_class[NEAR]]) for c, s in samples.items()}
    near = shared_near_cut([(s.by_class[UNRELATED], copies[c]) for c, s in samples.items()])
    pooled = {kind: np.concatenate([s.by_class[kind] for s in samples.values()]) for kind in (EXACT, NEAR, UNRELATED)}
    exact = max(near + 10**-decimals, exact_cut(pooled[EXACT], pooled[NEAR]))
    near, exact = round(near, decimals), round(exact, decimals)
    describe(samples, near, exact)
    if options.write is not None:
        Calibration(
            metric=metric.name,
            near=Threshold(near, ">="),
            exact=Threshold(exact, ">="),
            source=f"calibration {name} of this package",
            domain=KINDS.get(options.domain, "brain MRI and chest X-ray (the stricter of both)"),
            base_size=max(sample.base_size for sample in samples.values()),
            false_positive_rate=round(float((pooled[UNRELATED] >= near).mean()), 6),
            how=f"near: lowest value that at most {FALSE_POSITIVE_SHARE:.0%} of strangers reach over the base "
            f"{'as they lie' if options.in_place else 'in any of three conditions'}, or the middle between it and the "
            "lowest 1 % of copies where that is higher; "
            "exact: best balanced accuracy of exact against near; people of tune, those of train in the base "
            "(scripts/calibrate_encoder.py)",
            views="none",
        ).write(options.write / f"{name}.calibration.json")


if __name__ == "__main__":
    main()
