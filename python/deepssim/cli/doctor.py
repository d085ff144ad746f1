"""``deepssim doctor``."""

from __future__ import annotations

import importlib
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from deepssim import __version__
from deepssim.cli._options import echo_json

OPTIONAL = (
    ("nibabel", "nibabel", "medical", "NIfTI volumes"),
    ("pydicom", "pydicom", "medical", "DICOM files"),
    ("onnx", "onnx", "cpu", "reading metric bundles"),
    ("torch", "torch", "train", "training and export"),
    ("torchvision", "torchvision", "train", "the published networks"),
    ("safetensors", "safetensors", "train", "checkpoints"),
    ("accelerate", "accelerate", "train", "training"),
    ("matplotlib", "matplotlib", "train", "curves of a training"),
    ("onnxscript", "onnxscript", "train", "export"),
    ("einops", "einops", "train", "VAE and latent diffusion"),
    ("monai", "monai", "train", "VAE and latent diffusion"),
)


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _packages() -> list[dict[str, Any]]:
    rows = []
    for module, distribution, extra, purpose in OPTIONAL:
        installed, problem = _version(distribution), None
        # Torch and MONAI take seconds to import: that they are installed is all that is looked at.
        if installed and extra != "train":
            try:
                importlib.import_module(module)
            except Exception as error:  # a broken install may raise anything
                problem = str(error)
        rows.append({"package": distribution, "version": installed, "for": purpose, "extra": extra, "problem": problem})
    return rows


def _runtime(advice: list[str]) -> dict[str, Any]:
    cpu, gpu = _version("onnxruntime"), _version("onnxruntime-gpu")
    found: dict[str, Any] = {"onnxruntime": cpu, "onnxruntime-gpu": gpu, "providers": {}}
    if cpu and gpu:
        advice.append("onnxruntime and onnxruntime-gpu share one import name: uninstall both, then install one")
    if not cpu and not gpu:
        advice.append(
            "no ONNX Runtime: pip install onnxruntime onnx (the extra cpu), or onnxruntime-gpu onnx (the extra gpu)"
        )
        return found
    try:
        from deepssim.embed import available_providers

        for provider in available_providers():
            state = found["providers"][provider] = _try_provider(provider)
            if state.startswith("does not load"):
                advice.append(f"{provider} {state}")
    except Exception as error:
        found["problem"] = str(error)
        advice.append(f"ONNX Runtime cannot be used: {error}")
    return found


def _try_provider(provider: str) -> str:
    """Load the metric pixel where an audit would, and say what came of it."""
    from deepssim.embed import CPU, CUDA, OPENVINO, Encoder, Graph
    from deepssim.metric import load_metric

    try:
        metric = load_metric("pixel")
        if provider == CPU:
            Graph(metric.model_bytes())  # a processor means OpenVINO to an encoder, where that is
        elif provider in (CUDA, OPENVINO):
            used = Encoder(metric, device="cuda" if provider == CUDA else "cpu").provider
            if used != provider:
                return f"does not load: ONNX Runtime falls back to {used}"
        else:
            return "there, not used by deepssim"
    except Exception as error:  # whatever a provider's libraries raise
        return f"does not load: {error}"
    return "loads"


def examine() -> dict[str, Any]:
    """Return everything that the command shows."""
    advice: list[str] = []
    result: dict[str, Any] = {"deepssim": __version__, "python": platform.python_version(), "core": {}}
    try:
        from deepssim.search import resolve_isa, supported_isa_levels, usable_processors

        result["core"] = {
            "isa": resolve_isa(),
            "isa_supported": supported_isa_levels(),
            "threads": usable_processors(),
        }
    except Exception as error:  # a core that does not load is what the doctor is called for
        result["core"] = {"problem": str(error)}
        advice.append(f"the C++ core does not load: {error}")
    result["runtime"] = _runtime(advice)
    result["packages"] = _packages()
    missing: dict[str, list[str]] = {}
    for row in result["packages"]:
        if row["problem"]:
            advice.append(f"{row['package']} is installed but does not import: {row['problem']}")
        elif row["version"] is None and row["extra"] != "cpu":
            missing.setdefault(row["extra"], []).append(f"{row['package']} ({row['for']})")
    for extra, names in missing.items():
        advice.append(f"optional, for {', '.join(names)}: the extra {extra} of deepssim has it")
    result["advice"] = advice
    result["healthy"] = "problem" not in result["core"] and "loads" in result["runtime"]["providers"].values()
    return result


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Say what is installed, which ONNX Runtime providers really load, which instruction set the core uses
    (DEEPSSIM_ISA overrides it), and what to install for what is missing. Exits with 1 if an audit cannot run.
    """  # noqa: D205 - click shows the paragraph as it is
    found = examine()
    if as_json:
        echo_json(found)
    else:
        core, runtime = found["core"], found["runtime"]
        click.echo(f"deepssim {found['deepssim']}, Python {found['python']}")
        if "problem" in core:
            click.echo(f"core       does not load: {core['problem']}")
        else:
            levels = ", ".join(core["isa_supported"])
            click.echo(f"core       {core['isa']} (this processor runs {levels}), {core['threads']} threads")
        name = "onnxruntime-gpu" if runtime["onnxruntime-gpu"] else "onnxruntime"
        click.echo(f"runtime    {name} {runtime[name] or 'not installed'}")
        for provider, state in runtime["providers"].items():
            click.echo(f"           {provider}: {state}")
        for row in found["packages"]:
            state = row["problem"] or row["version"] or "not installed"
            click.echo(f"{row['package']:<10} {state}  ({row['for']})")
        for line in found["advice"]:
            click.echo(f"- {line}")
        click.echo("Ready to audit." if found["healthy"] else "An audit cannot run yet: see the lines above.")
    if not found["healthy"]:
        ctx.exit(1)
