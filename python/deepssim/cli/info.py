"""``deepssim info``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from deepssim.cli._options import echo_json
from deepssim.errors import UsageError

_CUTS_SHOWN = 12


def _describe_store(path: Path) -> dict[str, Any]:
    from deepssim.store import Store

    store = Store(path, allow_incomplete=True)
    groups = store.records(["group"])["group"]
    return {
        "kind": "store",
        "path": str(path),
        "complete": store.is_complete,
        "embeddings": len(store),
        "dim": store.dim,
        "metric": store.metric,
        "shards": len(store.shards),
        "skipped": store.skipped().num_rows,
        "groups": len(groups.drop_null().unique()),
        "without_group": groups.null_count,
        "source": store.manifest["source"],
        "made_from": store.manifest["made_from"],
    }


def _describe_json(path: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from deepssim.calibration import FORMAT, Calibration

    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}") from error
    kind = value.get("format") if isinstance(value, dict) else None
    if kind == FORMAT:
        calibration = Calibration.read(path)
        curve = {} if calibration.curve is None else {"curve": asdict(calibration.curve)}
        return {
            "kind": "calibration",
            "path": str(path),
            "metric": calibration.metric,
            **calibration.as_dict(),
            **curve,
        }
    if kind == "deepssim-summary":
        keys = ("verdict", "synthetic_flagged", "real_copied", "patients_copied", "control", "thresholds")
        return {"kind": "audit", "path": str(path), **{key: value.get(key) for key in keys}}
    if kind == "deepssim-run":
        return {"kind": "run", "path": str(path), **value}
    raise UsageError(f"{path} is no file of deepssim")


def _some_cuts(curve: dict[str, Any]) -> dict[str, Any]:
    """Return some of a curve's cuts, each with the shares that reach it; the file and --json have all."""
    cuts, known = curve["cuts"], [(name, curve[name]) for name in ("unrelated", "copies") if curve[name]]
    return {
        f"{cuts[at]:.6g}": ", ".join(f"{name} {100 * shares[at]:.4g} %" for name, shares in known)
        for at in range(0, len(cuts), max(1, len(cuts) // _CUTS_SHOWN))
    }


def _describe(target: Path) -> dict[str, Any]:
    from dataclasses import asdict

    from deepssim.calibration import installed_calibrations, load_calibration
    from deepssim.metric import installed_metrics, load_metric
    from deepssim.store import Store

    if target.is_dir():
        if Store.is_store(target):
            return _describe_store(target)
        if (target / "summary.json").is_file():
            return _describe_json(target / "summary.json")
        raise UsageError(f"{target} is neither a store nor the folder of a finished audit")
    if target.suffix == ".json":
        return _describe_json(target)
    if str(target) in installed_calibrations() and str(target) not in installed_metrics():
        calibration = load_calibration(str(target))
        return {"kind": "calibration", "metric": calibration.metric, **calibration.as_dict()}
    if target.suffix == ".onnx" or str(target) in installed_metrics():
        metric = load_metric(str(target))
        described = {"kind": "metric", **asdict(metric), "path": str(metric.path), "input": metric.input.as_metadata()}
        if metric.path.with_suffix(".calibration.json").is_file():
            described["thresholds"] = metric.calibration().as_dict()
        return described
    if not target.exists():
        raise UsageError(f"{target} does not exist and is no installed metric ({', '.join(installed_metrics())})")
    raise UsageError(f"{target} is no store, .onnx bundle, calibration or audit folder")


def _lines(value: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{indent}{key}:", *_lines(item, indent + "  ")]
        else:
            shown = list(item) if isinstance(item, tuple) else item
            lines.append(f"{indent}{key}: {shown}".rstrip())
    return lines


@click.command("info")
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(target: Path, as_json: bool) -> None:
    """Describe a store, an .onnx bundle, a calibration, an installed metric (by name) or an audit's folder.

    \b
    deepssim info train.store
    deepssim info pixel
    """
    from deepssim.images.text import one_line

    described = _describe(target)
    if as_json:
        echo_json(described)
        return
    if "curve" in described:
        described["curve"] = _some_cuts(described["curve"])
    for line in _lines(described):
        click.echo(one_line(line, 1000) if line.strip() == line else "  " + one_line(line.strip(), 1000))
