"""Choose the thresholds of verification from images of people whose truth is known.

Verification registers a real image onto a synthetic one. S1 says whether it is a copy, S2 whether it is an exact one
(`deepssim.image_ops.Evidence`).

Thresholds are chosen on people of the splits ``train`` and ``tune`` alone, on copies and views of the benchmark with
known truth, its three conditions pooled. The base holds one film of each chest patient, or all slices of each brain. In
turn each person is outside it: the person's images, with the artefacts of a copy, are unrelated to the images of all
others, and the value of such an image is its highest S1 over them. From every base image come one exact and two near
copies, compared with their source. A *sibling* is another film of a patient in the base, or a slice at least 12 mm from
every slice of that person that it is compared to.

``near`` (of S1): the lowest value that at most 1 % of unrelated images reach; where the lowest 1 % of copies lie above
it, the middle between the two (`benchmarks.membench.thresholds.near_cut`), rounded up to .001. ``exact`` (of S2): the
best balanced accuracy of exact against near copies. The calibration ``verified`` is for both domains: its near
threshold lies between the higher of the two values that 1 % of unrelated images reach and the lower of those that 99 %
of copies reach, its exact threshold has the best balanced accuracy on average over the two.

    python scripts/calibrate_verified.py --data DATA --output verified.json --write python/deepssim/metrics
    python scripts/calibrate_verified.py --data DATA --output verified-test.json --evaluate

``--evaluate`` rates the installed thresholds on people of the split ``test`` instead, who had no part in choosing them;
the people of the other splits join the base, as no one's source. Intervals resample people.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.membench.bench import AMPLITUDES, CONDITIONS, NEAR_COPIES, SIBLING_STEPS
from benchmarks.membench.collection import Collection, read_collection
from benchmarks.membench.figures import Figure, share
from benchmarks.membench.thresholds import (
    accuracy_at,
    area_under_curve,
    balanced_accuracies,
    exact_cut,
    near_cut,
    shared_near_cut,
)
from benchmarks.membench.verified import FIELDS, S1, S2, Pixels, Table, examine, method_hash, to_bytes

from deepssim.calibration import Calibration, Threshold, load_calibration
from deepssim.evaluate import EXACT, NEAR, UNRELATED, interval_by_person
from deepssim.perturb import apply_view, degrade, draw_view, near_copy

NAME = "verified"
DOMAINS = {"brain": "T1-weighted brain MRI, axial slices", "chest": "frontal chest X-ray"}
CHOSEN_ON = ("train", "tune")
QUANTILES = (0.0, 0.01, 0.05, 0.5, 0.95, 0.99, 1.0)
PARTS = (0.1, 0.2, 0.4, 0.8)
PART_DRAWS = 20
STEP = 0.001
# What may tell exact from near copies, where this version measures it.
DETAILS = tuple(name for name in ("s2", "local_mean") if name in FIELDS)

Array = NDArray[np.float64]
SIBLING = -1  # beside the classes of `deepssim.evaluate`


@dataclass
class Sample:
    """Images that were compared with the base.

    Attributes:
        kind: ``(n,)`` class, or `SIBLING`.
        condition: ``(n,)`` number of the condition.
        people: ``(n,)`` whose images they are.
        evidence: ``(n, n_base, n_fields)``, NaN where a pair was not compared.
        base_people: ``(n_base,)``.
    """

    kind: NDArray[np.int64]
    condition: NDArray[np.int64]
    people: NDArray[np.str_]
    evidence: Table = field(repr=False)
    base_people: NDArray[np.str_]

    def value(self, kind: int, name: str = "s1") -> Array:
        """Return a statistic of the pair with the highest S1, of the images of a kind."""
        own = self.evidence[self.kind == kind]
        best = np.nan_to_num(own[..., S1], nan=-np.inf).argmax(axis=1)
        return np.asarray(own[np.arange(len(own)), best, FIELDS.index(name)], np.float64)


def main() -> None:
    """Read the options, measure both domains, print the tables and write the files."""
    options = _options()
    splits = ("test",) if options.evaluate else CHOSEN_ON
    samples: dict[str, Sample] = {}
    report: dict[str, Any] = {"splits": splits, "seed": options.seed, "method": method_hash()}
    for domain in DOMAINS:
        samples[domain] = read_and_measure(domain, options)
        report[domain] = describe(samples[domain], options.seed)
        print_domain(domain, report[domain])
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if options.evaluate:
        report["installed"] = evaluate(samples)
    else:
        report["combined"] = combine(samples, report)
        print_combined(report["combined"])
        if options.write is not None:
            write_calibrations(options.write, report)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv, brain/ and cxr/")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--write", type=Path, help="folder to write calibrations into: python/deepssim/metrics")
    parser.add_argument("--evaluate", action="store_true", help="rate the installed thresholds on the split test")
    parser.add_argument("--unrelated-part", type=float, default=1.0,
                        help="part of the base images that are seen as unrelated, in each condition")  # fmt: skip
    parser.add_argument("--cache", type=Path, help="folder of evidence, so that an interrupted run goes on")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if not 0.0 < options.unrelated_part <= 1.0:
        parser.error("--unrelated-part must be over 0 and at most 1")
    if not (options.data / "splits.csv").is_file():
        parser.error(f"no splits.csv in {options.data}; give the folder that holds it, brain/ and cxr/")
    return options


def read_and_measure(domain: str, options: argparse.Namespace) -> Sample:
    """Measure the people that the options ask for."""
    began = time.monotonic()

    def report(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {domain}: {text}\n")

    chosen_on = read_collection(options.data, domain, set(CHOSEN_ON))
    people, more = (
        (read_collection(options.data, domain, {"test"}), chosen_on) if options.evaluate else (chosen_on, None)
    )
    return measure(
        people,
        more,
        unrelated_part=options.unrelated_part,
        seed=options.seed,
        threads=options.threads,
        cache=options.cache,
        report=report,
    )


def measure(
    people: Collection,
    more: Collection | None,
    *,
    unrelated_part: float,
    seed: int,
    threads: int = 0,
    cache: Path | None = None,
    report: Callable[[str], None] = lambda _: None,
) -> Sample:
    """Make copies, unrelated images and siblings of people, and compare them with the base.

    Args:
        people: Whose images are copied and changed.
        more: Images of others in the base; None: there are none.
        unrelated_part: Of the base images of `people`, how many are unrelated to the others in each condition.
        seed: Of every draw.
        threads: 0: all that this process may use.
        cache: Folder of evidence found before.
        report: Told from time to time how far it is.
    """
    base, others = split_base(people)
    real = [people.images[i] for i in base]
    base_people, base_levels = people.people[base], people.levels[base]
    if more is not None:
        added, _ = split_base(more)
        real += [more.images[i] for i in added]
        base_people = np.concatenate([base_people, more.people[added]])
        base_levels = np.concatenate([base_levels, more.levels[added]])
    maker = _Maker(people, base, base_people, base_levels)
    for number in range(len(CONDITIONS)):
        maker.add_condition(number, others, unrelated_part, np.random.default_rng([seed, number]))
    evidence = examine(
        [to_bytes(image) for image in real],
        maker.images,
        np.stack(maker.wanted),
        threads=threads,
        cache=cache,
        report=report,
    )
    kind, condition = (np.array(values, np.int64) for values in (maker.kind, maker.condition))
    return Sample(kind, condition, np.array(maker.people), evidence, base_people)


def split_base(people: Collection) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return indices of base images and of the others: the first film of each patient, all slices of a brain."""
    if people.domain == "chest":
        _, first = np.unique(people.people, return_index=True)
        return first, np.setdiff1d(np.arange(len(people)), first)
    return np.arange(len(people)), np.zeros(0, np.int64)


class _Maker:
    """Makes the images to be compared with a base, and says with which parts of it."""

    def __init__(
        self,
        collection: Collection,
        base: NDArray[np.int64],
        base_people: NDArray[np.str_],
        base_levels: NDArray[np.int64],
    ) -> None:
        self._collection, self._base = collection, base
        self._base_people, self._base_levels = base_people, base_levels
        self.images: list[Pixels] = []
        self.kind: list[int] = []
        self.condition: list[int] = []
        self.people: list[str] = []
        self.wanted: list[NDArray[np.bool_]] = []

    def add_condition(
        self, number: int, others: NDArray[np.int64], unrelated_part: float, rng: np.random.Generator
    ) -> None:
        """Add the copies, the unrelated images and the siblings of a condition."""
        n_unrelated = math.ceil(unrelated_part * len(self._base))
        for index in np.sort(rng.permutation(self._base)[:n_unrelated]).tolist():
            stranger = self._seen(index, UNRELATED, number, rng)
            owner = self._base_people == self._collection.people[index]
            self._add(stranger, UNRELATED, number, index, ~owner)
            # The same image beside slices of its own person is a sibling.
            far = np.abs(self._base_levels - self._collection.levels[index]) >= SIBLING_STEPS
            if self._collection.domain != "chest" and (owner & far).any():
                self._add(stranger, SIBLING, number, index, owner & far)
        for index in others.tolist():
            owner = self._base_people == self._collection.people[index]
            self._add(self._seen(index, SIBLING, number, rng), SIBLING, number, index, owner)
        for place, index in enumerate(self._base.tolist()):
            source = np.arange(len(self._base_people)) == place
            for kind in (EXACT, *[NEAR] * NEAR_COPIES):
                self._add(self._seen(index, kind, number, rng), kind, number, index, source)

    def _seen(self, index: int, kind: int, number: int, rng: np.random.Generator) -> Pixels:
        image, condition = self._collection.images[index], CONDITIONS[number]
        made = near_copy(image, rng, amplitude_px=AMPLITUDES[condition]) if kind == NEAR else degrade(image, rng)
        height, width = image.shape
        return to_bytes(apply_view(made, draw_view(rng, condition, size=(height, width))))

    def _add(self, image: Pixels, kind: int, number: int, index: int, wanted: NDArray[np.bool_]) -> None:
        self.images.append(image)
        self.kind.append(kind)
        self.condition.append(number)
        self.people.append(str(self._collection.people[index]))
        self.wanted.append(wanted)


def describe(sample: Sample, seed: int) -> dict[str, Any]:
    """Turn a sample into quantiles, thresholds and the rates at these thresholds."""
    unrelated, exact, near, siblings = (sample.value(kind) for kind in (UNRELATED, EXACT, NEAR, SIBLING))
    cut = near_cut(unrelated, np.concatenate([exact, near]))
    details = {name: describe_detail(sample.value(EXACT, name), sample.value(NEAR, name)) for name in DETAILS}
    near_threshold, exact_threshold = rounded_up(cut), round(details["s2"]["cut"], 3)
    owners = sample.people[sample.kind == UNRELATED]
    interval = interval_by_person(lambda at: float(np.quantile(unrelated[at], 0.99)), owners, seed=seed)
    s1 = {"unrelated": unrelated, "sibling": siblings, "near": near, "exact": exact}
    s2 = {"near": sample.value(NEAR, "s2"), "exact": sample.value(EXACT, "s2")}
    per_image = np.isfinite(sample.evidence[sample.kind == UNRELATED][..., S1]).sum(axis=1)
    return {
        "n_base": int(np.median(per_image)),
        "n": {name: len(values) for name, values in s1.items()},
        "quantile_levels": QUANTILES,
        "s1": {name: np.quantile(values, QUANTILES).tolist() for name, values in s1.items()},
        "s2": {name: np.quantile(values, QUANTILES).tolist() for name, values in s2.items()},
        "unrelated_99_interval": interval,
        "near_threshold": near_threshold,
        "exact_threshold": exact_threshold,
        "details": details,
        "rates": rates(sample, near_threshold, exact_threshold),
        "by_base_size": grow(sample, seed),
    }


def rounded_up(cut: float) -> float:
    """Return a threshold with three decimals that lets no more pass."""
    return round(math.ceil(cut / STEP - 1e-6) * STEP, 3)


def describe_detail(exact: Array, near: Array) -> dict[str, float]:
    """Say how well a statistic tells exact from near copies."""
    cut = exact_cut(exact, near)
    accuracy = float(accuracy_at(exact, near, np.array([cut]))[0])
    return {"auc": area_under_curve(exact, near), "cut": cut, "balanced_accuracy": accuracy}


def rates(sample: Sample, near_threshold: float, exact_threshold: float) -> dict[str, dict[str, Any]]:
    """Return what happens to each kind of image, in all conditions and in each."""
    best = np.nan_to_num(sample.evidence[..., S1], nan=-np.inf).argmax(axis=1)
    values = sample.evidence[np.arange(len(best)), best].astype(np.float64)
    flagged = values[:, S1] >= near_threshold
    is_exact = flagged & (values[:, S2] >= exact_threshold)
    found: dict[str, dict[str, Any]] = {}
    for number, name in ((None, "all"), *enumerate(CONDITIONS)):
        seen = sample.condition == number if number is not None else np.ones(len(best), bool)

        def of(kind: int, event: NDArray[np.bool_], seen: NDArray[np.bool_] = seen) -> dict[str, float]:
            return as_dict(share(event, np.flatnonzero(seen & (sample.kind == kind)), sample.people))

        found[name] = {
            "unrelated_flagged": of(UNRELATED, flagged),
            "near_flagged": of(NEAR, flagged),
            "exact_flagged": of(EXACT, flagged),
            "near_called_near": of(NEAR, flagged & ~is_exact),
            "exact_called_exact": of(EXACT, is_exact),
            "sibling_flagged": of(SIBLING, flagged),
            "sibling_called_exact": of(SIBLING, is_exact),
        }
    return found


def as_dict(figure: Figure) -> dict[str, float]:
    """Return a figure for JSON."""
    return {"value": figure.value, "low": figure.low, "high": figure.high, "n": figure.n}


def grow(sample: Sample, seed: int) -> list[dict[str, float]]:
    """Measure how the highest S1 of unrelated images grows with the people in the base."""
    rng = np.random.default_rng([seed, len(CONDITIONS)])
    s1 = sample.evidence[sample.kind == UNRELATED][..., S1]
    everybody = np.unique(sample.base_people)
    rows = []
    for part in PARTS:
        n_people = max(1, round(part * len(everybody)))
        highest, sizes = [], []
        for _ in range(PART_DRAWS):
            chosen = np.isin(sample.base_people, rng.permutation(everybody)[:n_people])
            known = np.isfinite(s1[:, chosen])
            seen = known.any(axis=1)
            highest.append(np.nanmax(s1[seen][:, chosen], axis=1))
            sizes.append(known.sum(axis=1).mean())
        values = np.concatenate(highest)
        top = {f"q{q:g}": float(np.quantile(values, q)) for q in (0.5, 0.95, 0.99)}
        rows.append({"part": part, "n_images": float(np.mean(sizes)), **top, "max": float(values.max())})
    return rows


def combine(samples: dict[str, Sample], report: dict[str, Any]) -> dict[str, Any]:
    """Choose one pair of thresholds for both domains, and say what each loses by it."""
    sides = [(s.value(UNRELATED), np.concatenate([s.value(EXACT), s.value(NEAR)])) for s in samples.values()]
    near_threshold = rounded_up(shared_near_cut(sides))
    scores = {domain: (s.value(EXACT, "s2"), s.value(NEAR, "s2")) for domain, s in samples.items()}
    cuts = np.unique(np.concatenate([balanced_accuracies(*pair)[0] for pair in scores.values()]))
    accuracy = {domain: accuracy_at(*pair, cuts) for domain, pair in scores.items()}
    mean = np.mean(list(accuracy.values()), axis=0)
    best = np.flatnonzero(mean >= mean.max() - 1e-12)
    place = int(best[len(best) // 2])
    exact_threshold = round(float(cuts[place]), 3)
    return {
        "near_threshold": near_threshold,
        "exact_threshold": exact_threshold,
        "balanced_accuracy": {domain: float(values[place]) for domain, values in accuracy.items()},
        "balanced_accuracy_of_own": {d: report[d]["details"]["s2"]["balanced_accuracy"] for d in samples},
        "rates": {domain: rates(s, near_threshold, exact_threshold) for domain, s in samples.items()},
    }


def evaluate(samples: dict[str, Sample]) -> dict[str, Any]:
    """Rate the installed thresholds, the default and those of the domain, and print them."""
    found: dict[str, Any] = {}
    for domain, sample in samples.items():
        for name in (NAME, f"{NAME}.{domain}"):
            cuts = load_calibration(name).cuts()
            found.setdefault(domain, {})[name] = rates(sample, *cuts)
            print(f"\n{domain}, {name} (near {cuts[0]:.3f}, exact {cuts[1]:.3f}):\n")
            print_rates(found[domain][name])
    return found


def write_calibrations(folder: Path, report: dict[str, Any]) -> None:
    """Write the default calibration and one for each domain."""
    rule = (
        "near (S1): lowest value that at most 1 % of unrelated images reach over the base, or the middle between it "
        "and the lowest 1 % of copies where that is higher; exact (S2): best balanced accuracy of exact against near"
    )
    where = "three conditions pooled; people of train and tune (scripts/calibrate_verified.py)"
    combined = report["combined"]
    both = {
        "near_threshold": combined["near_threshold"],
        "exact_threshold": combined["exact_threshold"],
        "n_base": min(report[domain]["n_base"] for domain in DOMAINS),
        "rate": max(combined["rates"][domain]["all"]["unrelated_flagged"]["value"] for domain in DOMAINS),
    }
    how = f"{rule}; near between the domains' higher unrelated and lower copies, exact best on average; {where}"
    chosen = [("", "brain MRI and chest X-ray", both, how)]
    for domain, words in DOMAINS.items():
        own = {**report[domain], "rate": report[domain]["rates"]["all"]["unrelated_flagged"]["value"]}
        chosen.append((f".{domain}", words, own, f"{rule}; {where}"))
    for suffix, words, values, text in chosen:
        Calibration(
            metric=NAME,
            near=Threshold(values["near_threshold"], ">="),
            exact=Threshold(values["exact_threshold"], ">="),
            source=f"calibration {NAME}{suffix} of this package",
            stage="verified",
            domain=words,
            base_size=values["n_base"],
            false_positive_rate=round(values["rate"], 6),
            how=text,
        ).write(folder / f"{NAME}{suffix}.calibration.json")


def print_domain(domain: str, report: dict[str, Any]) -> None:
    """Print the tables of one domain as Markdown."""
    print(f"\n## {domain}, {report['n_base']} images in the base of each\n")
    print("| statistic | images | n | " + " | ".join(f"{100 * q:g} %" for q in QUANTILES) + " |")
    print("|---" * (3 + len(QUANTILES)) + "|")
    for statistic in ("s1", "s2"):
        for name, values in report[statistic].items():
            cells = " | ".join(f"{value:.4f}" for value in values)
            print(f"| {statistic.upper()} | {name} | {report['n'][name]} | {cells} |")
    low, high = report["unrelated_99_interval"]
    print(f"\nnear: S1 >= {report['near_threshold']:.3f} (99 % quantile of unrelated: {low:.4f} to {high:.4f})")
    print(f"exact: S2 >= {report['exact_threshold']:.3f}\n")
    print("| exact against near by | AUC | cut | balanced accuracy |\n|---|---|---|---|")
    for name, d in report["details"].items():
        print(f"| {name} | {d['auc']:.4f} | {d['cut']:.4f} | {d['balanced_accuracy']:.4f} |")
    print()
    print_rates(report["rates"])
    print("\n| part of the people | base images | unrelated 50 % | 95 % | 99 % | max |\n|---|---|---|---|---|---|")
    for row in report["by_base_size"]:
        top = " | ".join(f"{row[key]:.4f}" for key in ("q0.5", "q0.95", "q0.99", "max"))
        print(f"| {100 * row['part']:.0f} % | {row['n_images']:.0f} | {top} |")


def print_combined(combined: dict[str, Any]) -> None:
    """Print the thresholds of the default calibration and what they give in each domain."""
    print(
        f"\n## combined: near S1 >= {combined['near_threshold']:.3f}, exact S2 >= {combined['exact_threshold']:.3f}\n"
    )
    for domain, values in combined["rates"].items():
        own, here = (combined[key][domain] for key in ("balanced_accuracy_of_own", "balanced_accuracy"))
        print(f"{domain}: balanced accuracy of exact against near {here:.4f}, with a threshold of its own {own:.4f}\n")
        print_rates(values)
        print()


def print_rates(found: dict[str, dict[str, Any]]) -> None:
    """Print rates as a Markdown table, in percent with 95 % intervals."""
    names: Sequence[str] = list(found["all"])
    print(
        "| condition | "
        + " | ".join(name.replace("_", " ") for name in names)
        + " |\n"
        + "|---" * (1 + len(names))
        + "|"
    )
    for condition, values in found.items():
        cells = (f"{100 * v['value']:.2f} ({100 * v['low']:.2f} to {100 * v['high']:.2f})" for v in values.values())
        print(f"| {condition} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
