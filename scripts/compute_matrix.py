"""The reference implementation's ``compute_matrix.py``, run by ``deepssim score --reference-layout``: the same flags.

It embeds every image ``UID/NAME.png`` of a folder, and writes embeddings, the scores of all real images (those called
``training``) with all others, and what rows and columns are. Scores are float32; ``--float16`` rounds them as there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import door
import door_models


def main() -> None:
    """Translate the flags, and run the command."""
    parser = door.make_parser("Embed the images of a folder and score all real with all synthetic ones.")
    parser.add_argument("--augment", action="store_true", help="show every image flipped, turned and re-contrasted")
    parser.add_argument("--use_gpu", action="store_true", help="run on a GPU if there is one")
    parser.add_argument("--metric_name", required=True, choices=door.METRICS)
    parser.add_argument("--model_path", required=True)
    parser.add_argument("--dataset_images_dir", required=True, type=Path)
    parser.add_argument("--embeddings_dir", required=True, type=Path)
    parser.add_argument("--matrices_dir", required=True, type=Path)
    parser.add_argument("--indices_dir", required=True, type=Path)
    parser.add_argument("--batch_size", type=int, default=32, help="taken and not used: scores do not depend on it")
    parser.add_argument("--num_workers", type=int, help="threads; default: all")
    ours = parser.add_argument_group("not in the reference")
    ours.add_argument("--weights", help="of an OpenCLIP model (semdedup), where they are not to be downloaded")
    ours.add_argument("--reference_normalisation", action="store_true",
                      help="of chen: divide by the mean, as there by mistake")  # fmt: skip
    ours.add_argument("--float16", action="store_true", help="round scores to float16")
    flags = parser.parse_args()
    _check_places(flags)
    bundle = door_models.bundle_of(
        flags.model_path, flags.metric_name, flags.dataset_images_dir, flags.embeddings_dir,
        weights=flags.weights, is_faulty=flags.reference_normalisation,
    )  # fmt: skip
    door.run(
        [
            "score", flags.dataset_images_dir, "--reference-layout", "--metric", bundle, "--name", flags.metric_name,
            "--embeddings-dir", flags.embeddings_dir, "--matrices-dir", flags.matrices_dir,
            "--indices-dir", flags.indices_dir, *(["--use-gpu"] if flags.use_gpu else ["--device", "cpu"]),
            *(door.PERTURBED if flags.augment else ()),
            *(["--float16"] if flags.float16 else []),
            *([] if flags.num_workers is None else ["--threads", max(1, flags.num_workers)]),
        ]
    )  # fmt: skip


def _check_places(flags: argparse.Namespace) -> None:
    """Refuse images and folders that the command would refuse, before a model is exported for minutes."""
    from deepssim.disk import check_writable
    from deepssim.errors import DeepSSIMError
    from deepssim.images import list_images
    from deepssim.reference.layout import split_layout
    from deepssim.reference.names import refuse_unnameable
    from deepssim.reference.scoring import Folders, refuse_inside

    folders = Folders.under(None, flags.embeddings_dir, flags.matrices_dir, flags.indices_dir)
    try:
        listing = list_images(flags.dataset_images_dir)
        split_layout(listing)
        refuse_inside(listing, folders)
        refuse_unnameable([file.path for file in listing.files])
        for folder in (folders.embeddings, folders.matrices, folders.indices):
            check_writable(folder)
    except DeepSSIMError as error:
        door.fail(str(error))


if __name__ == "__main__":
    main()
