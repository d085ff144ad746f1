"""``deepssim generate``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from deepssim.cli._options import (
    MEMORY_LIMIT,
    Dimensions,
    F,
    apply_options,
    echo_json,
    fail_above_option,
    image_options,
    keep_option,
    metric_option,
    talk_options,
    threads_option,
)

if TYPE_CHECKING:
    from deepssim.generative.data.records import Dataset, Record
    from deepssim.generative.sampling.plan import Plan
    from deepssim.generative.sampling.run import GenerateOptions
    from deepssim.generative.sampling.sampler import Backend
    from deepssim.generative.sampling.sinks import FolderSink, Sink
    from deepssim.generative.shapes import LatentShapes
    from deepssim.progress import Progress

# Of modules that are not loaded for a help text.
INTENSITIES = ("clip", "min-max")
MOST_SEED = 2**31 - 1
# Options that mean something in one case alone.
OF_STATE_DICTS = ("config", "conditioning")
OF_RECORDS = ("n_gen_per_record", "split", "text_encoder", "with_training")
OF_AUDITS = ("holdout", "metric", "group_by", "slices", "axis", "max_pixels", "keep", "fail_above")
OF_FILES = ("kind", "dtype", "with_training")
_PATH = click.Path(path_type=Path)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def _model_options(function: F) -> F:
    """Add what says which model, and what it must fit."""
    return apply_options(
        [
            click.option("--vae", "--aekl-ckpt", "vae", type=_FILE,
                         help="The autoencoder: .safetensors of train vae, or a .pth of MONAI or monai-generative."),
            click.option("--diffusion", "--diff-ckpt", "unet", type=_FILE,
                         help="The U-Net: .safetensors of train ldm, or a .pth likewise."),
            click.option("--onnx", type=click.Path(path_type=Path, exists=True, file_okay=False),
                         help="Instead of both: a folder of deepssim export, which runs without PyTorch."),
            click.option("--config", metavar="NAME|FILE",
                         help="Sizes of a .pth, which does not say them: paper-brain, paper-chest, a TOML file.  "
                         "[default: paper-brain]"),
            click.option("--conditioning", metavar="[none|variables|text]",
                         help="What a .pth is conditioned on; of other files, checked.  [default: what the file says]"),
            click.option("--size", type=Dimensions(),
                         help="Rows and columns of the images of a .pth.  [default: those of the data set]"),
            click.option("--latent-shape", metavar="CxHxW", help="Of the U-Net's latents, checked: 3x36x28."),
            click.option("--vae-space-shape", metavar="CxHxW", help="Of the autoencoder's, checked: 3x34x28."),
            click.option("--transpose/--no-transpose", default=None,
                         help="Whether the model saw images with rows and columns exchanged, as the published ones "
                         "did: they are exchanged back.  [default: as its files say]"),
        ],
        function,
    )  # fmt: skip


def _plan_options(function: F) -> F:
    """Add what says which images."""
    return apply_options(
        [
            click.option("--dataset-csv", type=_FILE,
                         help="Records to make images for: image_uid, and image_path, variables or caption_emb_path."),
            click.option("--n-gen-per-record", type=click.IntRange(1), default=30, show_default=True,
                         help="Images of each record."),
            click.option("--split", metavar="NAME", help="Records of one split alone, such as train.  [default: all]"),
            click.option("--n-images", type=click.IntRange(1),
                         help="Instead of a CSV: so many images of a model without conditions."),
            click.option("--only", metavar="UID/NUMBER", multiple=True,
                         help="Make this one alone, with the bits that it has among the others; repeatable."),
            click.option("--text-encoder", metavar="MODEL",
                         help="What embeds the captions of a CSV without saved embeddings: a folder of the "
                         "transformers library, or hf-hub:NAME, which is downloaded."),
            click.option("--steps", type=click.IntRange(1), default=50, show_default=True, help="Of DDIM sampling."),
            click.option("--guidance", type=click.FloatRange(0), default=1.0, show_default=True,
                         help="Weight of the condition, for a model that was trained with dropped ones; 1: as it is."),
            click.option("--seed", type=click.IntRange(0, MOST_SEED), default=0, show_default=True,
                         help="With UID and NUMBER, what an image is drawn by."),
            click.option("--batch-size", "batch", type=click.IntRange(1, 4096), default=8, show_default=True,
                         help="Images at a time, more on a GPU; last bits of an image may depend on it, and on "
                         "nothing that was made before."),
            click.option("--intensity", type=click.Choice(INTENSITIES), default="clip", show_default=True,
                         help="clip: grey as the model makes it, cut off at black and white. min-max: each image "
                         "stretched, as in the reference implementation."),
            click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True,
                         help="Where the model runs; cuda is an error where there is none."),
            threads_option,
        ],
        function,
    )  # fmt: skip


def _place_options(function: F) -> F:
    """Add where images go."""
    return apply_options(
        [
            click.option("--out", "--output-path", "out", required=True, type=_PATH,
                         help="Folder (UID/gen-NUMBER.png), FILE.tar (the same in an archive), FILE.npy (one stack), "
                         "or - for a stream on stdout; with --audit, the folder of its results."),
            click.option("--format", "kind", type=click.Choice(["tar", "npy"]), help="Of a stream.  [default: tar]"),
            click.option("--dtype", type=click.Choice(["uint8", "float32"]), help="Of a stack.  [default: uint8]"),
            click.option("--training-images", "with_training", is_flag=True,
                         help="Write the real image of each record beside its own, UID/training.png, as the reference "
                         "implementation does. An audit of such a folder takes them for generated ones."),
            click.option("--audit", "real", metavar="REAL", type=_PATH,
                         help="Audit the images as they are made, against these real ones; none is kept but what the "
                         "audit keeps. The next eight options are its own."),
            click.option("--holdout", type=_PATH, help="Comparable real images that the model never saw."),
            metric_option,
            image_options,
            keep_option,
            fail_above_option,
        ],
        function,
    )  # fmt: skip


@click.command("generate")
@_model_options
@_plan_options
@_place_options
@talk_options
@click.pass_context
def command(ctx: click.Context, /, quiet: bool, as_json: bool, **asked: Any) -> None:
    """Make images with a latent diffusion model.

    Each image has a seed of its own, drawn from --seed, UID and NUMBER: any can be made again alone. Started again
    with the same options, the command goes on where it was; what is there is never made again, nor mixed with images
    of other options.

    \b
    deepssim generate --vae runs/vae/best.safetensors --diffusion runs/ldm/last.safetensors --n-images 1000 --out made/
    deepssim generate --onnx exported/ --dataset-csv data.csv --n-gen-per-record 30 --out made.tar
    deepssim generate --onnx exported/ --n-images 100000 --out - | deepssim audit REAL - --out result/
    deepssim generate --onnx exported/ --n-images 100000 --audit REAL --out result/
    """
    _refuse_what_does_not_fit(ctx, asked, as_json)
    # Before anything can print where images are to go.
    pipe = _take_stdout() if _is_stream(asked) else None
    from deepssim.cli._progress import make_progress
    from deepssim.generative.sampling.run import GenerateOptions

    progress = make_progress(quiet)
    records = _records(asked, progress)
    backend = _backend(asked, records)
    if asked["transpose"] is None:
        asked["transpose"] = bool(backend.facts.is_transposed)
    plan = _plan(asked, backend, records, progress)
    options = GenerateOptions(asked["steps"], asked["guidance"], asked["seed"], asked["intensity"], asked["transpose"])
    if asked["real"] is not None:
        _audit(ctx, asked, plan, backend, options, progress, as_json=as_json)
        return
    _write(asked, plan, backend, options, records, pipe, progress, as_json=as_json)


def _is_stream(asked: Mapping[str, Any]) -> bool:
    return str(asked["out"]) == "-"


def _refuse_what_does_not_fit(ctx: click.Context, asked: Mapping[str, Any], as_json: bool) -> None:
    """Refuse options that contradict each other or mean nothing here; all of a kind are named."""
    from click.core import ParameterSource

    given = {p.name: p.opts[0] for p in ctx.command.params
             if ctx.get_parameter_source(p.name or "") == ParameterSource.COMMANDLINE}  # fmt: skip

    def refuse(names: Sequence[str], when: str) -> None:
        if odd := [given[name] for name in names if name in given]:
            raise click.UsageError(f"{', '.join(odd)}: {when}")

    parts = asked["vae"] is not None, asked["unet"] is not None
    if asked["onnx"] is not None:
        refuse(("vae", "unet", *OF_STATE_DICTS, "size"), "not with --onnx, whose folder says all of a model")
    elif not all(parts):
        missing = " and ".join(name for name, there in zip(("--vae", "--diffusion"), parts, strict=True) if not there)
        raise click.UsageError(f"no model to sample: {missing} missing (or --onnx FOLDER)")
    if (asked["dataset_csv"] is None) == (asked["n_images"] is None):
        raise click.UsageError("say which images: either --dataset-csv CSV or --n-images N")
    if asked["dataset_csv"] is None:
        refuse(OF_RECORDS, "only with --dataset-csv")
    if asked["real"] is None:
        refuse(OF_AUDITS, "only with --audit")
    else:
        refuse(OF_FILES, "not with --audit, which keeps images in a form of its own")
    _refuse_places(asked, refuse, as_json)


def _refuse_places(asked: Mapping[str, Any], refuse: Callable[[Sequence[str], str], None], as_json: bool) -> None:
    suffix = asked["out"].suffix.lower()
    if not _is_stream(asked):
        refuse(("kind",), "only with --out -; files say it by their suffix, .tar or .npy")
        if suffix in (".tgz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".npz", ".png"):
            raise click.UsageError(f"--out is {asked['out'].name}: give a folder, a .tar file or a .npy file")
    elif asked["real"] is not None:
        raise click.UsageError("--out is the folder of the audit's results, with --audit")
    elif as_json:
        raise click.UsageError("--json and --out - both write to stdout: give one of them")
    elif sys.stdout is None or sys.stdout.isatty():
        raise click.UsageError("--out - writes binary images: redirect stdout or pipe it, as | deepssim audit REAL -")
    if asked["dtype"] is not None and _kind(asked) != "npy":
        refuse(("dtype",), "only of a stack, --out FILE.npy or --out - --format npy")
    if asked["with_training"] and _kind(asked) != "folder":
        refuse(("with_training",), "only in a folder")


def _kind(asked: Mapping[str, Any]) -> str:
    """Return what is written: ``folder``, ``tar`` or ``npy``."""
    if _is_stream(asked):
        return asked["kind"] or "tar"
    suffix = asked["out"].suffix.lower()
    return suffix[1:] if suffix in (".tar", ".npy") else "folder"


def _take_stdout() -> BinaryIO:
    """Return stdout for images alone; whatever a library prints goes to stderr from here on."""
    sys.stdout.flush()
    mine = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return os.fdopen(mine, "wb", buffering=0)


def _is_training_written(asked: Mapping[str, Any]) -> bool:
    return asked["real"] is None and _kind(asked) == "folder" and bool(asked["with_training"])


def _records(asked: Mapping[str, Any], progress: Progress) -> tuple[Record, ...]:
    """Read the CSV, where there is one."""
    if asked["dataset_csv"] is None:
        return ()
    from deepssim.generative.data.records import read_dataset

    dataset: Dataset = read_dataset(
        asked["dataset_csv"], with_splits=False, with_images=_is_training_written(asked) or _is_size_of_image(asked)
    )
    for note in dataset.notes:
        progress.status(note)
    return dataset.records if asked["split"] is None else dataset.split(asked["split"])


def _is_size_of_image(asked: Mapping[str, Any]) -> bool:
    """Return whether the size of the images has to be taken from one: a .pth does not say it."""
    files = [path for path in (asked["vae"], asked["unet"]) if path is not None]
    return asked["size"] is None and any(path.suffix != ".safetensors" for path in files)


def _backend(asked: Mapping[str, Any], records: Sequence[Record]) -> Backend:
    """Load the model and check it against what was said of it."""
    from deepssim.errors import UsageError
    from deepssim.generative.data.conditions import conditioning_name

    if asked["onnx"] is not None:
        from deepssim.generative.sampling.graphs import load_backend as load_graphs

        backend: Backend = load_graphs(
            asked["onnx"], device=asked["device"], batch=asked["batch"], threads=asked["threads"]
        )
    else:
        from deepssim.extras import require_generative

        require_generative()
        from deepssim.generate import load_backend

        conditioning = None if asked["conditioning"] is None else conditioning_name(asked["conditioning"])
        if asked["conditioning"] == "conditioning":
            click.echo("Warning: --conditioning conditioning is called text here", err=True)
        size = asked["size"] or _size_of_images(asked, records)
        backend = load_backend(
            asked["vae"], asked["unet"], config=asked["config"], conditioning=conditioning, size=size,
            device=asked["device"], batch=asked["batch"], threads=asked["threads"],
        )  # fmt: skip
    shapes = backend.facts.shapes
    if asked["size"] not in (None, shapes.image):
        rows, columns = shapes.image
        raise UsageError(f"the model was trained on images of {rows}x{columns} pixels: leave --size out")
    try:
        shapes.check(asked["latent_shape"], asked["vae_space_shape"])
    except UsageError as error:
        if records and not asked["transpose"] and _fits_exchanged(asked, shapes):
            raise UsageError(f"{error}; with rows and columns exchanged they fit: give --transpose") from None
        raise
    return backend


def _fits_exchanged(asked: Mapping[str, Any], shapes: LatentShapes) -> bool:
    from deepssim.generative.shapes import parse_shape

    channels, rows, columns = shapes.vae
    shape = asked["vae_space_shape"]
    return shape is not None and parse_shape(shape, "--vae-space-shape") == (channels, columns, rows)


def _size_of_images(asked: Mapping[str, Any], records: Sequence[Record]) -> tuple[int, int] | None:
    """Return rows and columns of the images that a .pth was trained on, as its data set or a shape says."""
    from deepssim.generative.config import read_config
    from deepssim.generative.data.records import load_images
    from deepssim.generative.shapes import parse_shape

    if not _is_size_of_image(asked):
        return None
    if records:
        (image,) = load_images(records[:1], transpose=bool(asked["transpose"]))
        return int(image.shape[0]), int(image.shape[1])
    if asked["vae_space_shape"] is not None:
        _, rows, columns = parse_shape(asked["vae_space_shape"], "--vae-space-shape")
        factor = read_config(asked["config"] or "paper-brain").vae.factor
        return rows * factor, columns * factor
    return None


def _plan(asked: Mapping[str, Any], backend: Backend, records: Sequence[Record], progress: Progress) -> Plan:
    """Return which images are made, with their conditions."""
    from deepssim.errors import UsageError
    from deepssim.generative.sampling.plan import plan_free, plan_records

    spec = backend.facts.conditions
    if asked["n_images"] is not None:
        if spec.kind != "none":
            raise UsageError(
                f"the model makes images under conditions ({spec.kind}): give --dataset-csv with records that have them"
            )
        plan = plan_free(asked["n_images"])
    else:
        embed = None
        name = asked["text_encoder"]
        if name is not None:
            if spec.kind != "text":
                raise UsageError(f"--text-encoder: the model's conditions are {spec.kind}, not text")
            from deepssim.models.text import TextEncoder

            embed = TextEncoder(name, device=backend.device, progress=progress)
            if spec.encoder not in (None, embed.name):
                raise UsageError(
                    f"the model's captions were embedded by {spec.encoder}, and {name} is {embed.name}: give the same"
                )
            spec = replace(spec, encoder=embed.name)
        contexts = spec.arrays(records, embed)
        plan = plan_records([record.uid for record in records], asked["n_gen_per_record"], contexts)
    if asked["only"]:
        plan = plan.narrowed(asked["only"])
    device = "a GPU" if backend.device == "cuda" else "the processor"
    progress.status(f"{len(plan):,} images to make, {backend.batch:,} at a time, on {device}")
    return plan


def _sink(asked: Mapping[str, Any], backend: Backend, pipe: BinaryIO | None) -> Sink:
    from deepssim.generative.sampling.sinks import FileSink, FolderSink, PipeSink
    from deepssim.generative.sampling.streams import NpyStream, Stream, TarStream

    kind = _kind(asked)
    if kind == "folder":
        return FolderSink(asked["out"])
    rows, columns = backend.facts.shapes.image
    size = (columns, rows) if asked["transpose"] else (rows, columns)
    stream: Stream = TarStream() if kind == "tar" else NpyStream(size, asked["dtype"] or "uint8")
    return FileSink(asked["out"], stream) if pipe is None else PipeSink(pipe, stream)


def _write(
    asked: Mapping[str, Any],
    plan: Plan,
    backend: Backend,
    options: GenerateOptions,
    records: Sequence[Record],
    pipe: BinaryIO | None,
    progress: Progress,
    *,
    as_json: bool,
) -> None:
    """Make images into files, and say how many."""
    from deepssim.generative.data.records import load_images
    from deepssim.generative.sampling.run import generate, write_training_images

    def training(sink: FolderSink) -> None:
        wanted = {plan.request(place).uid for place in plan.wanted()} if plan.only is not None else None
        chosen = [record for record in records if wanted is None or record.uid in wanted]
        write_training_images(sink, chosen, partial(load_images, threads=1), options, progress)

    noted = {name: str(asked[name]) for name in ("vae", "unet", "onnx", "dataset_csv") if asked[name] is not None}
    done = generate(
        plan, backend, _sink(asked, backend, pipe), options, noted=noted,
        training=training if records and _is_training_written(asked) else None, progress=progress,
    )  # fmt: skip
    if as_json:
        echo_json({"out": done.source, "images": len(plan), "made": done.n_made, "seconds": round(done.seconds, 3)})
    else:
        place = "stdout" if pipe is not None else done.source
        click.echo(f"{place}: {len(plan):,} images, {done.n_made:,} made now", err=pipe is not None)


def _audit(
    ctx: click.Context,
    asked: Mapping[str, Any],
    plan: Plan,
    backend: Backend,
    options: GenerateOptions,
    progress: Progress,
    *,
    as_json: bool,
) -> None:
    """Audit images as they are made."""
    from deepssim.audit import AuditOptions, audit
    from deepssim.cli._outcome import announce
    from deepssim.generative.sampling.run import GeneratedStream
    from deepssim.images import ImageOptions
    from deepssim.kept import DEFAULT_SAMPLE
    from deepssim.matching import MatchOptions
    from deepssim.report import write_report

    cut = {name: asked[name] for name in ("slices", "axis", "max_pixels")}
    audited = AuditOptions(
        metric=asked["metric"],
        images=ImageOptions(**cut, group_by=asked["group_by"]),
        synthetic_images=ImageOptions(**cut),
        match=MatchOptions(threads=asked["threads"], memory_limit=MEMORY_LIMIT),
        device=asked["device"],
        keep=DEFAULT_SAMPLE if asked["keep"] is None else asked["keep"],
        command="generate",
    )
    stream = GeneratedStream(plan, backend, options)
    result = audit(asked["real"], stream, asked["out"], holdout=asked["holdout"], options=audited, progress=progress)
    announce(ctx, result, write_report(asked["out"]), as_json=as_json, fail_above=asked["fail_above"])
