"""``deepssim export`` of a VAE or a U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deepssim.cli._options import echo_json

if TYPE_CHECKING:
    from deepssim.export import ExportedPart

# Options that say something of a model here, of the whole command's.
_FITTING = frozenset({"checkpoint", "vae", "config", "conditioning", "out", "size", "opset", "as_json", "quiet"})
OF_PARTS = ("vae", "config", "conditioning")


def kind_of_checkpoint(path: Path) -> str | None:
    """Return the architecture of a checkpoint of this package; ``"state dict"`` of another file that torch writes."""
    from deepssim.models.checkpoint import architecture_of

    return "state dict" if path.suffix in (".pth", ".pt", ".ckpt") else architecture_of(path)


def given_options(ctx: click.Context) -> dict[str, str]:
    """Return the options that the user gave: names of the parameters, and how they are written."""
    from click.core import ParameterSource

    return {
        str(p.name): max(p.opts, key=len)
        for p in ctx.command.params
        if ctx.get_parameter_source(p.name or "") == ParameterSource.COMMANDLINE
    }


def export_parts(ctx: click.Context, kind: str, asked: Mapping[str, Any]) -> None:
    """Export a VAE, or a U-Net and its VAE, into a folder."""
    from deepssim.cli._progress import make_progress
    from deepssim.errors import UsageError
    from deepssim.export import export_model
    from deepssim.generative.data.conditions import conditioning_name
    from deepssim.models.generative import load_generative, load_vae, part_of
    from deepssim.models.vae import Vae

    out, checkpoint = asked["out"], asked["checkpoint"]
    if odd := [option for name, option in given_options(ctx).items() if name not in _FITTING]:
        raise UsageError(f"{', '.join(odd)}: not of a part of a latent diffusion model, which {checkpoint} is")
    if out.suffix == ".onnx":
        raise UsageError(f"{checkpoint} becomes several files: name a folder with --out, not {out.name}")
    _refuse_needless(kind, asked)
    progress = make_progress(asked["quiet"])
    conditioning = None if asked["conditioning"] is None else conditioning_name(asked["conditioning"])
    network, described = load_generative(checkpoint, asked["config"], conditioning, size=asked["size"])
    part = part_of(network, described, checkpoint)
    if isinstance(network, Vae):
        if asked["vae"] is not None or conditioning is not None:
            raise UsageError(f"{checkpoint} is a VAE: --vae and --conditioning are for a U-Net")
        made = export_model(out, vae=(network, part), opset=asked["opset"], progress=progress.status)
    else:
        vae = None
        if asked["vae"] is not None:
            found, vae_described = load_vae(asked["vae"], asked["config"], size=asked["size"])
            vae = found, part_of(found, vae_described, asked["vae"])
        made = export_model(out, vae=vae, unet=(network, part), opset=asked["opset"], progress=progress.status)
    _tell(out, made, as_json=asked["as_json"])


def _refuse_needless(kind: str, asked: Mapping[str, Any]) -> None:
    """Refuse what is said of state dicts where there are none."""
    from deepssim.errors import UsageError

    files = [kind] if asked["vae"] is None else [kind, kind_of_checkpoint(asked["vae"])]
    if "state dict" not in files and (asked["config"] is not None or asked["size"] is not None):
        raise UsageError("--config and --size are for a .pth: a checkpoint of deepssim train says both itself")


def _tell(out: Path, made: tuple[ExportedPart, ...], *, as_json: bool) -> None:
    from deepssim.generative.sampling.graphs import FILES

    if as_json:
        files = [{"part": one.part, "path": str(one.path), "largest_error": one.error, "n_bytes": one.n_bytes}
                 for one in made]  # fmt: skip
        echo_json({"out": str(out), "files": files})
        return
    for one in made:
        click.echo(f"{one.path}: {one.n_bytes / 2**20:.1f} MiB, within {one.error:.1e} of PyTorch's")
    if all((out / FILES[part]).is_file() for part in ("decoder", "unet")):
        click.echo(f"to sample without PyTorch: deepssim generate --onnx {out} --n-images 16 --out made/")
    else:
        click.echo(f"its U-Net goes beside it: deepssim export UNET --out {out}")
