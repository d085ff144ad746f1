"""``deepssim metrics``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deepssim.cli._options import echo_json


@click.command("metrics")
@click.argument("places", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(places: tuple[Path, ...], as_json: bool) -> None:
    """List metrics: the installed ones, or those of bundles and folders, PLACES.

    Of each: what it is fed, how two embeddings are compared, its thresholds and where they come from. Without PLACES
    also the metrics whose weights do not come with the package, and the command that makes each.

    \b
    deepssim metrics
    deepssim metrics mine.onnx bundles/
    """
    from dataclasses import asdict

    from deepssim.calibration import installed_calibrations, load_calibration
    from deepssim.catalogue import OBTAINABLE, describe_metric, describe_thresholds, find_metrics

    metrics, faults = find_metrics(list(places))
    described = [describe_metric(metric) for metric in metrics]
    known = installed_calibrations()
    missing = [
        {
            **asdict(one),
            "thresholds": describe_thresholds(load_calibration(one.name), one.similarity)
            if one.name in known
            else None,
        }
        for one in (() if places else OBTAINABLE)
    ]
    if as_json:
        echo_json({"metrics": described, "obtainable": missing, "faults": faults})
        return
    for one in described:
        _tell(one, _input(one["input"], one["intensity"]))
    if missing:
        click.echo("Their weights do not come with the package:\n")
    for one in missing:
        _tell(one, one["input"])
    for fault in faults:
        _say(f"no metric: {fault}", err=True)
    if not described:
        click.echo("no metric there; deepssim bundle and deepssim export make some", err=True)


def _say(text: str, *, err: bool = False) -> None:
    from deepssim.images.text import one_line

    # One line never tells a terminal what to do; its indentation stays.
    click.echo(text[: len(text) - len(text.lstrip())] + one_line(text.lstrip(), 1000), err=err)


def _tell(one: dict[str, Any], fed: str) -> None:
    _say(one["name"] + (f"  {one['path']}" if one.get("path") else ""))
    elements = f", {one['dim']:,} elements" if "dim" in one else ""
    lines = [
        ("", one["description"]),
        ("input", fed),
        ("similarity", one["similarity"] + elements),
        ("thresholds", _thresholds(one["thresholds"])),
        ("others", ", ".join(one.get("calibrations", []))),
        ("source", one.get("provenance", "")),
        ("licence", one["licence"]),
        ("needs", one.get("needs", "")),
        ("made by", one.get("command", "")),
    ]
    for label, text in lines:
        if text:
            _say(f"  {label:<12}{text}" if label else f"  {text}")
    click.echo()


def _input(rule: dict[str, Any], intensity: str) -> str:
    grey = "byte grey" if rule.get("grey") == "byte" else "grey as read"
    # Of pixels alone the intensity is the grey value itself.
    more = f", {intensity}" if intensity not in ("", "raw", "byte", "none") else ""
    return f"{rule['height']} x {rule['width']}, {rule['resize']}; {grey}{more}"


def _thresholds(told: dict[str, Any] | None) -> str:
    if told is None:
        return "none yet"

    def shown(name: str) -> str:
        threshold = told[name]
        if "distance" in threshold:
            sign = "<=" if threshold["comparison"] == ">=" else "<"
            return (
                f"{name} {sign} {threshold['distance']:.4g} (score {threshold['comparison']} {threshold['value']:.6g})"
            )
        return f"{name} {threshold['comparison']} {threshold['value']:.7g}"

    same = told["near"] == told["exact"]
    both = f"{shown('exact')}, nothing is near" if same else f"{shown('near')}, {shown('exact')}"
    return both + (f": {told['source']}" if told["source"] else "")
