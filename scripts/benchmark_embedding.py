"""Images embedded in a second, from PNG files: encoders of the package against the way of the published implementation.

    python scripts/benchmark_embedding.py --images train/ --metric brain pixel

That way: a TorchScript ConvNeXt-Base of 88 M weights (here with random ones, which cost the same), batches of 32 from a
PyTorch DataLoader whose workers decode the files. It writes a file for each embedding, which is left out here. Both
sides take turns on the same files; the table gives medians and their ratio. Needs the extra train.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from deepssim.embed import Encoder
from deepssim.embed_stream import embed_listing
from deepssim.images import list_images
from deepssim.metric import load_metric
from deepssim.models.checkpoint import Description, build_network
from deepssim.search import usable_processors

SIZE = (136, 112)
BATCH = 32


class Files(Dataset[Tensor]):
    """PNG files as grey images ``(1, height, width)``."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, place: int) -> Tensor:
        """Read, and resize where needed."""
        with Image.open(self.paths[place]) as file:
            grey = file.convert("L")
            pixels = np.asarray(grey if grey.size == SIZE[::-1] else grey.resize(SIZE[::-1]), np.float32)
        return torch.from_numpy(pixels.copy())[None]


def published_way(paths: list[Path], workers: int) -> Callable[[], int]:
    """Return what embeds files as the published implementation does."""
    arguments = {"dim": 256, "dropout": 0.33}
    network = build_network(Description("convnext-base", arguments, *SIZE, "deepssim", {})).eval()
    scripted = torch.jit.freeze(torch.jit.trace(network, torch.rand(BATCH, 1, *SIZE)).eval())

    def run() -> int:
        n = 0
        with torch.no_grad():
            for batch in DataLoader(Files(paths), BATCH, num_workers=workers):
                n += len(scripted(batch))
        return n

    return run


def our_way(folder: Path, metric: str, threads: int) -> Callable[[], int]:
    """Return what embeds a folder as ``deepssim embed`` does, working images included."""
    encoder = Encoder(load_metric(metric), device="cpu", threads=threads)

    def run() -> int:
        chunks = embed_listing(list_images(folder), encoder, with_working=True, threads=threads)
        return sum(len(chunk.records) for chunk in chunks)

    return run


def main() -> None:
    """Time both ways in turn and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--images", type=Path, required=True, help="folder of PNG files")
    parser.add_argument("--metric", nargs="+", default=["brain"], help="installed metrics or bundles")
    parser.add_argument("--published", type=int, default=160, help="files for the published way; default: 160")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    threads = usable_processors()
    torch.set_num_threads(threads)
    paths = sorted(options.images.rglob("*.png"))
    few = [paths[k] for k in np.linspace(0, len(paths) - 1, min(options.published, len(paths))).astype(int)]
    ways = {"TorchScript ConvNeXt-Base, DataLoader": (published_way(few, threads), len(few))}
    ways |= {f"deepssim embed, {name}": (our_way(options.images, name, threads), len(paths)) for name in options.metric}
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, (run, n) in ways.items():
            began = time.perf_counter()
            done = run()
            rates[name].append(done / (time.perf_counter() - began))
            if done != n:
                raise SystemExit(f"{name} embedded {done} of {n} files")
    base = statistics.median(rates["TorchScript ConvNeXt-Base, DataLoader"])
    sys.stdout.write(f"{len(paths):,} PNG files, {threads} threads, {options.rounds} rounds\n\n")
    sys.stdout.write("| way | images/s | ratio |\n|---|---:|---:|\n")
    for name, values in rates.items():
        rate = statistics.median(values)
        sys.stdout.write(f"| {name} | {rate:,.0f} ({min(values):,.0f} to {max(values):,.0f}) | {rate / base:.1f} |\n")


if __name__ == "__main__":
    main()
