"""What an encoder finds, and what its cosine says: the figures of docs/results.md and of the model card.

    python scripts/measure_encoder.py brain --data DATA --split test

*Retrieval*: benchmarks with known truth are drawn of the people of a split; the images of the other splits join the
base. Among how many nearest is the source of a copy? *Cosine*: real images and graded partners of them, from twins over
local deformations to other people, the partners seen under each condition; the error of the cosine against the SSIM of
the two before the view (z-scored, range of the real image), as many pairs in each tenth of the SSIM as there are, up to
one level. Real images are embedded as they are and as a gallery, partners as they are.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.membench.bench import CONDITIONS
from benchmarks.membench.collection import Collection
from benchmarks.membench.run import DISTRACTORS, Settings, draw, read_people
from benchmarks.membench.systems import metric_scores

from deepssim.embed import Encoder
from deepssim.evaluate import EXACT
from deepssim.gallery import GalleryViews
from deepssim.image_ops import similarity_pairs
from deepssim.metric import Metric, load_metric
from deepssim.partners import GRADES, make_partner
from deepssim.perturb import ViewKind, apply_view, draw_view

RANKS = (1, 4, 8, 16, 32)
PER_BIN = 200

Bytes = NDArray[np.uint8]


def retrieval(metric: Metric, settings: Settings, domain: str, n_draws: int) -> None:
    """Print the share of copies whose source is among the nearest."""
    sys.stdout.write("| condition | base | copies | exact, among " + " / ".join(map(str, RANKS)) + " | near |\n")
    sys.stdout.write("|---|---|---|---|---|\n")
    for condition in CONDITIONS:
        ranks, exact, n_base = [], [], 0
        for k in range(n_draws):
            one = Settings(settings.data, split=settings.split, seed=settings.seed + k, with_distractors=True)
            made = draw(one, domain, condition, settings.split)
            scores = metric_scores(metric, made.real, made.synthetic)
            copies = np.flatnonzero(made.bench.source >= 0)
            own = scores[copies, made.bench.source[copies]]
            ranks.append((scores[copies] > own[:, None]).sum(axis=1))
            exact.append(made.bench.truth[copies] == EXACT)
            n_base = len(made.real)
        rank, is_exact = np.concatenate(ranks), np.concatenate(exact)
        cells = [" / ".join(f"{(rank[chosen] < k).mean():.3f}" for k in RANKS) for chosen in (is_exact, ~is_exact)]
        sys.stdout.write(f"| {condition} | {n_base} | {len(rank)} | {cells[0]} | {cells[1]} |\n")


def graded_pairs(
    people: Collection, seed: int
) -> tuple[list[Bytes], list[Bytes], NDArray[np.int64], NDArray[np.float64]]:
    """Return real images, partners, pairs of them evenly over the SSIM, and that."""
    rng = np.random.default_rng([seed, 40])
    real = [as_bytes(image) for image in people.images]
    partners, owner = [], []
    for k, image in enumerate(people.images):
        for grade in GRADES:
            partners.append(as_bytes(grade.make(image, rng).image))
            owner.append(k)
        for other in rng.integers(len(real), size=6).tolist():
            partners.append(as_bytes(make_partner(image, "other", rng, other=people.images[other]).image))
            owner.append(k)
    pairs = np.stack([np.array(owner), np.arange(len(partners))], axis=1).astype(np.int64)
    more = np.stack([rng.integers(len(real), size=20_000), rng.integers(len(partners), size=20_000)], axis=1)
    pairs = np.concatenate([pairs, more])
    target = similarity_pairs("ssim", np.stack(real), np.stack(partners), pairs, data_range=None, with_z_score=True)
    place = tenth(target)
    kept = np.concatenate([rng.permutation(np.flatnonzero(place == b))[:PER_BIN] for b in np.unique(place)])
    return real, partners, pairs[kept], target[kept]


def as_bytes(image: NDArray[np.float32]) -> Bytes:
    """Return an image as an 8-bit file holds it."""
    return np.asarray(np.rint(np.clip(image, 0, 1) * 255), np.uint8)


def cosine_error(metric: Metric, people: Collection, seed: int) -> None:
    """Print how far the cosine is from the SSIM, in all and by tenth."""
    real, partners, pairs, target = graded_pairs(people, seed)
    encoder = Encoder(metric, device="cpu")
    place = tenth(target)
    bins = [b for b in np.unique(place) if (place == b).sum() >= PER_BIN // 10]
    sys.stdout.write(f"\n{len(pairs):,} pairs, from {target.min():.2f}\n\n| partners | real images | ")
    sys.stdout.write("mean absolute error, tenths counted alike: all / from 0 | tenths of the SSIM: error (mean of ")
    sys.stdout.write("cosine less SSIM) |\n|---|---|---|---|\n")
    prepared = [encoder.prepare(image.astype(np.float32)) for image in real]
    for condition in CONDITIONS:
        seen = encoder.encode([encoder.prepare(image) for image in seen_under(partners, condition, seed)])
        for name, rows in (
            ("as they are", encoder.encode(prepared)),
            ("as a gallery", encoder.encode_gallery(prepared)),
        ):
            error = np.einsum("ij,ij->i", rows[pairs[:, 0]], seen[pairs[:, 1]]) - target
            by_bin = {b: (np.abs(error[place == b]).mean(), error[place == b].mean()) for b in bins}
            cells = ", ".join(f"{b / 10:.1f}: {size:.3f} ({bias:+.3f})" for b, (size, bias) in by_bin.items())
            even, natural = (np.mean([by_bin[b][0] for b in bins if b >= least]) for least in (-10, 0))
            sys.stdout.write(f"| {condition} | {name} | {even:.4f} / {natural:.4f} | {cells} |\n")


def tenth(similarity: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the tenth of each similarity; 1 belongs to the last."""
    return np.clip(np.floor(similarity * 10).astype(np.int64), -10, 9)


def seen_under(images: list[Bytes], condition: ViewKind, seed: int) -> list[NDArray[np.float32]]:
    """Return images as they are seen, in the unit of 8-bit files."""
    rng = np.random.default_rng([seed, 41, CONDITIONS.index(condition)])
    views = []
    for image in images:
        view = draw_view(rng, condition, size=(image.shape[0], image.shape[1]))
        views.append(np.rint(apply_view(image.astype(np.float32) / np.float32(255), view) * 255).astype(np.float32))
    return views


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("domain", choices=("brain", "chest"))
    parser.add_argument("--metric", help="bundle to measure; default: the installed encoder of the domain")
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv, brain/ and cxr/")
    parser.add_argument("--split", choices=tuple(DISTRACTORS), default="test")
    parser.add_argument("--gallery-turns", help="degrees of the gallery's views instead of the bundle's; '': no views")
    parser.add_argument("--draws", type=int, default=3, help="benchmarks a condition")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    settings = Settings(options.data, split=options.split, seed=options.seed)
    metric = load_metric(options.metric or options.domain)
    if options.gallery_turns is not None:
        turns = tuple(float(turn) for turn in options.gallery_turns.split(",") if turn)
        metric = replace(metric, gallery=GalleryViews(turns) if turns else None)
    retrieval(metric, settings, options.domain, options.draws)
    cosine_error(metric, read_people(settings, options.domain, (options.split,)), options.seed)


if __name__ == "__main__":
    main()
