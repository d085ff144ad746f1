"""Make the table of the benchmark with known truth.

python -m benchmarks.membench --data DATA --out membench.json --markdown table.md
python -m benchmarks.membench --data DATA --curve --condition hard --out curve.json --markdown curve.md --plot curve.png
python -m benchmarks.membench --data DATA --summary --bundle dar:brain=DAR.onnx dar:chest=DAR.onnx --markdown summary.md
python -m benchmarks.membench --quick
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import deepssim
from benchmarks.membench.bench import CONDITIONS
from benchmarks.membench.bundles import ENCODER, IN_IMAGES, parse_bundle
from benchmarks.membench.collection import DOMAINS
from benchmarks.membench.curve import Point, measure_curve, plot_curve
from benchmarks.membench.run import DISTRACTORS, SUMMARY_SYSTEMS, SYSTEMS, TUNE, Row, Settings, run
from benchmarks.membench.summary import as_summary
from benchmarks.membench.table import as_json, as_markdown
from benchmarks.membench.verified import method_hash
from deepssim.errors import DeepSSIMError
from deepssim.metric import installed_metrics

# For a look and for CI: a few small phantoms.
QUICK: dict[str, Any] = {"n_people": 4, "side": 56}
SUMMARY_DOMAINS = ("brain", "chest")
SUMMARY_CONDITIONS = ("aligned", "perturbed")
SUMMARY_CALIBRATIONS = ("verified", *(f"verified.{domain}" for domain in SUMMARY_DOMAINS))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        settings = _settings(options)
    except ValueError as error:
        parser.error(str(error))
    default = SUMMARY_DOMAINS if options.summary else DOMAINS
    domains = tuple(options.domain or (("phantom",) if options.quick else default))
    conditions = tuple(options.condition or (SUMMARY_CONDITIONS if options.summary else CONDITIONS))
    if set(domains) - {"phantom"} and not (settings.data and (settings.data / "splits.csv").is_file()):
        parser.error(f"no splits.csv in {settings.data}; give --data the folder that holds it, brain/ and cxr/")
    began = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"{time.monotonic() - began:6.0f} s  {text}\n")
        sys.stderr.flush()

    rows: list[Row] = []
    points: list[Point] = []
    try:
        if options.curve:
            points = measure_curve(settings, domains, conditions, say)
        else:
            rows = run(settings, domains, conditions, say)
    except (DeepSSIMError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    about = _about(settings, sys.argv[1:] if arguments is None else arguments)
    text = as_summary(rows, about) if options.summary and rows else as_markdown(rows, points, about)
    sys.stdout.write(text)
    if options.markdown:
        options.markdown.write_text(text, encoding="utf-8")
    if options.out:
        options.out.write_text(json.dumps(as_json(rows, points, about), indent=1) + "\n", encoding="utf-8")
    if options.plot and points:
        plot_curve(points, options.plot)
    return 0


def _parser() -> argparse.ArgumentParser:
    default = Settings(None)
    data = os.environ.get("DEEPSSIM_DATA")
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.membench", description=(__doc__ or "").split("\n", maxsplit=1)[0]
    )
    add = parser.add_argument
    add("--data", type=Path, default=Path(data) if data else None, help="folder with splits.csv, brain/ and cxr/")
    add("--domain", nargs="+", choices=DOMAINS, help="default: all")
    add("--condition", nargs="+", choices=CONDITIONS, help="default: all; with --summary aligned and perturbed")
    add("--split", choices=tuple(DISTRACTORS), default=default.split, help=f"whose figures; thresholds: {TUNE}")
    add("--system", nargs="+", help="ssim, fsim, verifier, pipeline, encoder (the installed metric of the domain), the "
        "name of a metric, or NAME=FILE.onnx; default: " + " ".join(SYSTEMS))  # fmt: skip
    add("--bundle", nargs="+", default=[], metavar="NAME[:DOMAIN]=FILE", help="a system more, with a bundle for all "
        "domains or for one")  # fmt: skip
    add("--screen", help="metric that finds the candidates of the pipeline; default: "
        f"{default.screen}, with --summary {ENCODER}")  # fmt: skip
    add("-k", type=int, default=default.k, help="candidates of the pipeline")
    add("--max-per-person", type=int, default=default.max_per_person, help="of them; 0: no cap")
    add("--calibration", nargs="+", help="of the stage verified; one that ends in .brain or .chest is for that domain")
    add("--distractors", action="store_true", help="add images of people of other splits to the base")
    add("--perturb-both", action="store_true", help="perturb real images too, in the condition perturbed")
    add("--seed", type=int, default=default.seed)
    add("--threads", type=int, default=default.threads, help="0: all")
    add("--cache", type=Path, help="folder of evidence, so that an interrupted run goes on")
    add("--people", type=int, help="of each split the first so many, for a look; default: all")
    add("--quick", action="store_true", help="a few small phantoms")
    add("--summary", action="store_true", help="one table of all metrics that are here and of the pipeline")
    add("--curve", action="store_true", help="what is seen of near copies by the amplitude of their deformation")
    add("--out", type=Path, help="JSON file")
    add("--markdown", type=Path, help="Markdown file")
    add("--plot", type=Path, help="PNG file of the curve")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    default = Settings(None)
    bundles = dict(parse_bundle(text) for text in options.bundle)
    systems = []
    for text in options.system or (_summary_systems() if options.summary else SYSTEMS):
        if "=" in text:
            name, path = parse_bundle(text)
            bundles[name] = path
        systems.append(text.partition("=")[0].partition(":")[0])
    systems += [name.partition(":")[0] for name in bundles]
    if options.summary:
        systems.sort(key=("verifier", "pipeline").__contains__)  # what verifies pairs stands at the end
    settings = Settings(
        data=options.data,
        split=options.split,
        seed=options.seed,
        systems=tuple(dict.fromkeys(systems)),
        bundles=bundles,
        screen=options.screen or (ENCODER if options.summary else default.screen),
        k=options.k,
        max_per_person=options.max_per_person,
        calibrations=tuple(options.calibration or (SUMMARY_CALIBRATIONS if options.summary else default.calibrations)),
        with_distractors=options.distractors,
        perturb_both=options.perturb_both,
        n_people=options.people,
        threads=options.threads,
        cache=options.cache,
    )
    return replace(settings, **QUICK) if options.quick else settings


def _summary_systems() -> list[str]:
    """Return what can be had here: of metrics those that are installed."""
    here = {*IN_IMAGES, ENCODER, *installed_metrics()}
    return [system for system in SUMMARY_SYSTEMS if system in here]


def _about(settings: Settings, arguments: Sequence[str]) -> dict[str, Any]:
    base = "sources alone"
    if settings.with_distractors:
        base = f"sources, and as distractors the people of {' and '.join(DISTRACTORS[settings.split])}"
    people = "People" if settings.n_people is None else f"The first {settings.n_people} people"
    notes = [
        f"{people} of the split {settings.split}, seed {settings.seed}; the base: {base}. "
        f"Thresholds named {TUNE} were chosen for each domain and condition on the people of that split "
        f"({'with' if settings.with_distractors else 'without'} distractors), others are installed calibrations; "
        "near, exact in brackets. "
        f"Pipeline: {settings.k} candidates by {settings.screen}, at most {settings.max_per_person or 'any number'} of "
        f"one person. DeepSSIM {deepssim.__version__}, registration and evidence {method_hash()}.",
    ]
    return {
        "command": " ".join(["python -m benchmarks.membench", *arguments]),
        "notes": notes,
        "split": settings.split,
        "seed": settings.seed,
        "n_people": settings.n_people,
        "with_distractors": settings.with_distractors,
        "k": settings.k,
        "screen": settings.screen,
        "method": method_hash(),
    }


if __name__ == "__main__":
    sys.exit(main())
