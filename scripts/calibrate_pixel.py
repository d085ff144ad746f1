"""Choose the thresholds of the pixel metric from images of people whose truth is known.

The pixel metric takes an image to a locally normalised thumbnail and compares by inner product, in place or in many
views (`deepssim.screening`); a score is the highest of its views, and the nearest of more views scores higher: each
kind of views has thresholds of its own.

Thresholds are chosen on people of the splits ``train`` and ``tune`` alone. In each of several draws a part of
them is the base (real images); from every base image come one exact and one near copy in place, and an exact copy
under the view *hard* of the benchmark with known truth. The people outside the base are unrelated, both as they are
and with the artefacts of a copy. A *sibling* is another image of a person in the base: a follow-up film, or a slice
at least 12 mm from every slice of that person that it is compared to. The score of an image is its highest over the
base, the score of a copy the one with its source.

The threshold of a flag ("near") is the lowest, on a grid of .005, at which at most 1 % of unrelated images
are flagged; the threshold of "exact" is the one, on a grid of .001, that best tells exact from near copies
(balanced accuracy). Intervals resample the unrelated people.

    python scripts/calibrate_pixel.py --data DATA --output pixel.json --write python/deepssim/metrics
    python scripts/calibrate_pixel.py --data DATA --output pixel-test.json --evaluate

``--evaluate`` measures the installed thresholds on the people of the split ``test`` instead, who had no part in
choosing them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.membench.bench import SIBLING_STEPS
from benchmarks.membench.collection import Collection, read_collection

from deepssim.calibration import Calibration, Threshold, load_calibration
from deepssim.embed import Encoder
from deepssim.image_ops import make_views
from deepssim.metric import load_metric
from deepssim.perturb import apply_view, degrade, draw_view, near_copy
from deepssim.screening import GRIDS, VIEWS, Screen

METRIC = "pixel"
USED_SPLITS = frozenset({"train", "tune"})
FALSE_POSITIVE_RATE = 0.01
NEAR_STEP = 0.005
EXACT_STEP = 0.001
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
N_BOOTSTRAP = 1000

CLASSES = ("exact", "near", "moved", "unrelated", "unrelated_degraded", "sibling_degraded")

Array = NDArray[np.float64]
Floats = NDArray[np.float32]


def main() -> None:
    """Read the options, measure every domain, print the tables and write the JSON file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv, brain/ and cxr/")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--write", type=Path, help="folder to write calibrations into: python/deepssim/metrics")
    parser.add_argument("--views", action="append", choices=VIEWS, help="kinds of views; all if not given")
    parser.add_argument("--evaluate", action="store_true", help="rate the installed thresholds on the split test")
    parser.add_argument("--draws", type=int, default=8, help="divisions of the people into base and unrelated")
    parser.add_argument("--real-part", type=float, default=0.8, help="part of the people in the base")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.draws < 1 or not 0.0 < options.real_part < 1.0:
        parser.error("--draws must be at least 1 and --real-part between 0 and 1")
    if not (options.data / "splits.csv").is_file():
        parser.error(f"no splits.csv in {options.data}; give the folder that holds it, brain/ and cxr/")

    splits = frozenset({"test"}) if options.evaluate else USED_SPLITS
    report: dict[str, Any] = {"draws": options.draws, "real_part": options.real_part, "seed": options.seed}
    collections = {domain: read_collection(options.data, domain, splits) for domain in ("brain", "chest")}
    for views in options.views or VIEWS:
        report[views] = measure_views(collections, views, options)
        if options.write is not None and not options.evaluate:
            write_calibrations(options.write, report[views], views)
        options.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def measure_views(collections: dict[str, Collection], views: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure both domains with one kind of views, and print the tables."""
    scores: dict[str, dict[str, Array]] = {}
    report: dict[str, Any] = {}
    print(f"\n# views: {views}")
    for domain, collection in collections.items():
        scored = score_all(collection, views, options.seed)
        scores[domain] = measure(collection, scored, options.draws, options.real_part, options.seed)
        report[domain] = summarise(scores[domain], options.seed)
        if options.evaluate:
            report[domain]["installed"] = evaluate(domain, scores[domain], views, options.seed)
        report[domain]["n_base"] = int(options.real_part * len(collection.images))
        report[domain]["by_base_size"] = measure_base_sizes(collection, scored["degraded"], options.seed)
        if not options.evaluate:
            print_domain(domain, report[domain])
    if options.evaluate:
        print_evaluation({domain: report[domain]["installed"] for domain in scores})
        return report
    report["combined"] = combine(scores, [report[domain] for domain in scores])
    print_combined(report["combined"])
    return report


def score_all(collection: Collection, views: str, seed: int) -> dict[str, Array]:
    """Score every image, changed in several ways, with every image as it is: ``(n, n)`` each."""
    rng = np.random.default_rng([seed, 10**6 + 3])
    height, width = collection.images[0].shape
    degraded = change_all(collection.images, degrade, rng)
    near = change_all(collection.images, near_copy, rng)
    moved = [apply_view(image, draw_view(rng, "hard", size=(height, width))) for image in degraded]
    plain = embed(collection.images)
    queries = {"plain": plain, "degraded": embed(degraded), "near": embed(near), "moved": embed(moved)}
    return {name: highest(rows, plain, views, (height, width)) for name, rows in queries.items()}


def highest(queries: Floats, rows: Floats, views: str, size: tuple[int, int]) -> Array:
    """Return the highest score of each query with each row over the views."""
    if views == "none":
        return np.asarray(queries.astype(np.float64) @ rows.astype(np.float64).T)
    layout = load_metric(METRIC).layout
    if layout is None:
        raise ValueError(f"the metric {METRIC} has no views")
    (aspect,) = Screen(GRIDS[views], layout).aspects(np.array([size]))
    found = [(make_views(q.reshape(layout), GRIDS[views], aspect=aspect) @ rows.T).max(axis=0) for q in queries]
    return np.array(found, np.float64)


def measure(
    collection: Collection, scored: dict[str, Array], n_draws: int, real_part: float, seed: int
) -> dict[str, Array]:
    """Divide the people into base and unrelated in several draws.

    Returns:
        Scores by name, pooled over the draws; ``*_people`` are indices of the people of unrelated images,
        ``*_rank1`` are 1 where the nearest base image is the source.
    """
    pooled: dict[str, list[Array]] = {}
    everybody = np.unique(collection.people)
    for draw in range(n_draws):
        rng = np.random.default_rng([seed, draw])
        chosen = rng.permutation(everybody)[: round(real_part * len(everybody))]
        in_base = np.isin(collection.people, chosen)
        to_base = {name: scores[:, in_base] for name, scores in scored.items()}
        copies = {"exact": to_base["degraded"], "near": to_base["near"], "moved": to_base["moved"]}
        own = np.arange(int(in_base.sum()))
        found = {
            "unrelated": to_base["plain"][~in_base].max(axis=1),
            "unrelated_degraded": to_base["degraded"][~in_base].max(axis=1),
            "unrelated_people": np.searchsorted(everybody, collection.people[~in_base]).astype(np.float64),
            "sibling_degraded": nearest_sibling(to_base["degraded"][in_base], collection, in_base),
        }
        for name, scores in copies.items():
            found[name] = scores[in_base][own, own]
            found[f"{name}_rank1"] = (scores[in_base].argmax(axis=1) == own).astype(np.float64)
        for name, values in found.items():
            pooled.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in pooled.items()}


def nearest_sibling(scores: Array, collection: Collection, in_base: NDArray[np.bool_]) -> Array:
    """Score every base image as if it and its close neighbours were not in the base.

    Only images of people with another image left in the base count.
    """
    people, levels = collection.people[in_base], collection.levels[in_base]
    same = people[:, None] == people[None, :]
    apart = np.abs(levels[:, None] - levels[None, :])
    is_hidden = same & (apart < (1 if collection.domain == "chest" else SIBLING_STEPS))
    has_sibling = (same & ~is_hidden).any(axis=1)
    return np.asarray(np.where(is_hidden, -1.0, scores).max(axis=1)[has_sibling])


def measure_base_sizes(collection: Collection, degraded: Array, seed: int) -> list[dict[str, float]]:
    """Measure how the scores of unrelated images grow with the base; each person in turn is outside it."""
    rng = np.random.default_rng([seed, 10**6])
    everybody = np.unique(collection.people)
    rows = []
    for part in (0.1, 0.2, 0.4, 0.8):
        nearest, sizes = [], []
        for person in everybody:
            others = rng.permutation(everybody[everybody != person])[: round(part * len(everybody))]
            in_base = np.isin(collection.people, others)
            sizes.append(int(in_base.sum()))
            nearest.append(degraded[collection.people == person][:, in_base].max(axis=1))
        values = np.concatenate(nearest)
        top = {f"q{q:g}": float(np.quantile(values, q)) for q in (0.5, 0.95, 0.99)}
        rows.append({"n_images": float(np.mean(sizes)), **top, "max": float(values.max())})
    return rows


def summarise(scores: dict[str, Array], seed: int) -> dict[str, Any]:
    """Turn scores into quantiles, thresholds and the rates at these thresholds."""
    near_threshold = flag_threshold(scores)
    exact_threshold = max(near_threshold, best_cut(scores["exact"], scores["near"]))
    names = CLASSES
    return {
        "quantile_levels": list(QUANTILES),
        "quantiles": {name: np.quantile(scores[name], QUANTILES).tolist() for name in names},
        "n": {name: len(scores[name]) for name in names},
        "rank1": {name: float(scores[f"{name}_rank1"].mean()) for name in ("exact", "near", "moved")},
        "near_threshold": near_threshold,
        "near_threshold_interval": bootstrap(scores, seed),
        "exact_threshold": exact_threshold,
        "gap": float(scores["exact"].min() - worst_unrelated(scores).max()),
        "rates": rates(scores, near_threshold, exact_threshold),
    }


def worst_unrelated(scores: dict[str, Array]) -> Array:
    """Return the higher of an unrelated image's two scores, as it is and with artefacts."""
    return np.maximum(scores["unrelated"], scores["unrelated_degraded"])


def flag_threshold(scores: dict[str, Array]) -> float:
    """Return the lowest value on the grid that at most 1 % of unrelated images exceed, plain or degraded."""
    limit = max(
        float(np.quantile(scores[name], 1.0 - FALSE_POSITIVE_RATE)) for name in ("unrelated", "unrelated_degraded")
    )
    return round(float(np.ceil(limit / NEAR_STEP)) * NEAR_STEP, 6)


def best_cut(high: Array, low: Array) -> float:
    """Return the value on the grid that best separates two sets of scores; the middle one of equals."""
    grid = np.arange(min(high.min(), low.min()), 1.0, EXACT_STEP)
    accuracy = np.array([(high > cut).mean() + (low <= cut).mean() for cut in grid])
    best = grid[np.flatnonzero(accuracy >= accuracy.max() - 1e-12)]
    return round(float(best[len(best) // 2]), 3)


def bootstrap(scores: dict[str, Array], seed: int) -> list[float]:
    """Return the 95 % interval of the 99 % quantile of unrelated scores, resampling people."""
    rng = np.random.default_rng([seed, 10**6 + 1])
    groups = [
        scores["unrelated_degraded"][scores["unrelated_people"] == person]
        for person in np.unique(scores["unrelated_people"])
    ]
    found = [
        np.quantile(np.concatenate([groups[i] for i in rng.integers(0, len(groups), len(groups))]), 0.99)
        for _ in range(N_BOOTSTRAP)
    ]
    return [float(np.quantile(found, q)) for q in (0.025, 0.975)]


def rates(scores: dict[str, Array], near_threshold: float, exact_threshold: float) -> dict[str, float]:
    """Return what part of each class is flagged (score above), and what part is called exact."""
    flagged = {f"{name}_flagged": float((scores[name] > near_threshold).mean()) for name in CLASSES}
    called = {
        f"{name}_called_exact": float((scores[name] > exact_threshold).mean()) for name in ("exact", "near", "moved")
    }
    unrelated_exact = float((worst_unrelated(scores) > exact_threshold).mean())
    return {**flagged, **called, "unrelated_called_exact": unrelated_exact}


def combine(scores: dict[str, dict[str, Array]], reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Propose one pair of thresholds: the stricter flag, and the cut that serves the domains best on average."""
    near_threshold = max(report["near_threshold"] for report in reports)
    grid = np.arange(near_threshold, 1.0, EXACT_STEP)
    accuracy = [sum((s["exact"] > cut).mean() + (s["near"] <= cut).mean() for s in scores.values()) for cut in grid]
    exact_threshold = round(float(grid[int(np.argmax(accuracy))]), 3)
    by_domain = {domain: rates(s, near_threshold, exact_threshold) for domain, s in scores.items()}
    return {"near_threshold": near_threshold, "exact_threshold": exact_threshold, "rates": by_domain}


def evaluate(domain: str, scores: dict[str, Array], views: str, seed: int) -> dict[str, dict[str, Any]]:
    """Rate the default thresholds and those of the domain; adds rank 1 and the flags of unrelated people."""
    rated: dict[str, dict[str, Any]] = {}
    for name in (METRIC, f"{METRIC}.{'brain' if domain == 'brain' else 'chest'}"):
        near, exact = load_calibration(f"{name}{suffix_of(views)}").cuts()
        # Cuts are the smallest float32 that passes; rates() asks for more than a threshold.
        below = [float(np.nextafter(np.float32(cut), np.float32(0))) for cut in (near, exact)]
        rated[name] = rates(scores, *below)
        rated[name]["unrelated_interval"] = person_interval(scores, below[0], seed)
        for kind in ("exact", "near", "moved"):
            rated[name][f"{kind}_rank1"] = float(scores[f"{kind}_rank1"].mean())
            rated[name][f"n_{kind}"] = len(scores[kind])
        rated[name]["n_unrelated"] = len(scores["unrelated_degraded"])
    return rated


def person_interval(scores: dict[str, Array], threshold: float, seed: int) -> list[float]:
    """Return the 95 % interval of the share of unrelated images flagged, resampling their people."""
    rng = np.random.default_rng([seed, 10**6 + 2])
    flagged, owner = scores["unrelated_degraded"] > threshold, scores["unrelated_people"]
    people = np.unique(owner)
    if not flagged.any():
        return [0.0, float(1 - 0.05 ** (1 / len(people)))]
    by_person = [flagged[owner == person] for person in people]
    found = [
        np.concatenate([by_person[i] for i in rng.integers(0, len(people), len(people))]).mean()
        for _ in range(N_BOOTSTRAP)
    ]
    return [float(np.quantile(found, q)) for q in (0.025, 0.975)]


def print_evaluation(domains: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Print the rates as a Markdown table."""
    columns = ("images", "thresholds", "exact flagged", "near flagged", "moved flagged")
    columns = (*columns, "source at rank 1, exact / near / moved", "unrelated flagged")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for domain, by_name in domains.items():
        for name, r in by_name.items():
            low, high = r["unrelated_interval"]
            print(
                f"| {domain} | {name} | {100 * r['exact_flagged']:.2f} % of {r['n_exact']} "
                f"| {100 * r['near_flagged']:.2f} % of {r['n_near']} "
                f"| {100 * r['moved_flagged']:.2f} % of {r['n_moved']} "
                f"| {100 * r['exact_rank1']:.2f} / {100 * r['near_rank1']:.2f} / {100 * r['moved_rank1']:.2f} % "
                f"| {100 * r['unrelated_degraded_flagged']:.2f} % of {r['n_unrelated']} "
                f"({100 * low:.2f} to {100 * high:.2f}) |"
            )


def change_all(
    images: Sequence[NDArray[np.float32]],
    change: Callable[[NDArray[np.float32], np.random.Generator], NDArray[np.float32]],
    rng: np.random.Generator,
) -> list[NDArray[np.float32]]:
    """Apply one random change to every image."""
    return [change(image, rng) for image in images]


def embed(images: Sequence[NDArray[np.float32]]) -> Floats:
    """Return the embeddings of the metric itself, shape ``(n_images, dim)``."""
    encoder = Encoder(load_metric(METRIC), device="cpu")
    return encoder.encode([encoder.prepare(image) for image in images])


def suffix_of(views: str) -> str:
    """Return what the name of a calibration ends with; that of the default views has no ending."""
    return "" if views == "bank" else f".views-{views}"


def write_calibrations(folder: Path, report: dict[str, Any], views: str) -> None:
    """Write the calibration for both domains together and one for each."""
    how = (
        "near: lowest value on a grid of .005 that at most 1 % of unrelated images exceed; exact: best separation of "
        "exact from near copies in place; people of train and tune (scripts/calibrate_pixel.py)"
    )
    both = {"near_threshold": report["combined"]["near_threshold"],
            "exact_threshold": report["combined"]["exact_threshold"],
            "n_base": report["brain"]["n_base"],
            "rates": report["combined"]["rates"]["brain"]}  # fmt: skip
    domains = (
        ("", "brain MRI and chest X-ray (the stricter of both)", both),
        (".brain", "T1-weighted brain MRI, axial slices", report["brain"]),
        (".chest", "frontal chest X-ray", report["chest"]),
    )
    for part, domain, values in domains:
        name = f"{METRIC}{part}{suffix_of(views)}"
        unrelated = values["rates"]["unrelated_flagged"], values["rates"]["unrelated_degraded_flagged"]
        Calibration(
            metric=METRIC,
            near=Threshold(values["near_threshold"], ">"),
            exact=Threshold(values["exact_threshold"], ">"),
            source=f"calibration {name} of this package",
            domain=domain,
            base_size=values["n_base"],
            false_positive_rate=round(max(unrelated), 6),
            how=how,
            views=views,
        ).write(folder / f"{name}.calibration.json")


def print_domain(domain: str, report: dict[str, Any]) -> None:
    """Print the tables of one domain as Markdown."""
    print(f"\n## {domain}\n")
    print("| score | n | " + " | ".join(f"{100 * q:g} %" for q in report["quantile_levels"]) + " |")
    print("|---" * (2 + len(QUANTILES)) + "|")
    for name, values in report["quantiles"].items():
        print(f"| {name} | {report['n'][name]} | " + " | ".join(f"{v:.4f}" for v in values) + " |")
    print("\nrank 1: " + ", ".join(f"{name} {share:.4f}" for name, share in report["rank1"].items()))
    low, high = report["near_threshold_interval"]
    print(f"near > {report['near_threshold']:.3f} (99 % quantile of unrelated: {low:.4f} to {high:.4f})")
    print(f"exact > {report['exact_threshold']:.3f}; lowest exact minus highest unrelated: {report['gap']:+.4f}")
    print_rates(report["rates"])
    print("\n| base images | unrelated 50 % | 95 % | 99 % | max |\n|---|---|---|---|---|")
    for row in report["by_base_size"]:
        top = " | ".join(f"{row[key]:.4f}" for key in ("q0.5", "q0.95", "q0.99", "max"))
        print(f"| {row['n_images']:.0f} | {top} |")


def print_combined(combined: dict[str, Any]) -> None:
    """Print the thresholds proposed for all domains and what they give in each."""
    print(f"\n## combined: near > {combined['near_threshold']:.3f}, exact > {combined['exact_threshold']:.3f}")
    for domain, values in combined["rates"].items():
        print(f"\n{domain}:")
        print_rates(values)


def print_rates(values: dict[str, float]) -> None:
    """Print rates in percent, one a line."""
    for name, value in values.items():
        print(f"- {name}: {100 * value:.2f} %")


if __name__ == "__main__":
    main()
