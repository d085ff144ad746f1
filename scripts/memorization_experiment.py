"""Whether an audit finds what a latent diffusion model memorized: trained, sampled, audited, counted.

    python scripts/memorization_experiment.py --data DATA --out EXPERIMENT --seed 0

A model of the `small` size learns some brain slices of the ``train`` people, each 1 to 15 times an epoch. Samples of
several checkpoints are audited, with verification, against the images that it was trained on; slices of the ``test``
people, whom it never saw, are the control; those of the ``tune`` people select the autoencoder. Shown: how many samples
are copies, how many images and patients leak, by checkpoint and by how often an image was in an epoch.

Every stage is a command of this package, which is printed; a stage that is there is not done again, and one that was
killed goes on. ``EXPERIMENT`` gets ``results.json``, ``results.md``, ``leaks-by-step.png``, ``copies.png``,
``leaks-by-multiplicity.png`` and the audits with their reports.
"""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))

import door
from memorization_figures import Checkpoint, draw_copies, draw_multiplicity, draw_steps, markdown, measure, results
from real_images import people

from deepssim.disk import write_json
from deepssim.plots.style import save

MULTIPLICITIES = "1-15"


@dataclass(frozen=True)
class Plan:
    """What was asked, and where things lie.

    Attributes:
        data: Folder of the real images.
        out: Folder of the experiment.
        seed: Of the images that are trained on, their multiplicities, all weights, draws and samples.
        n_images: That the model is trained on.
        config: Of the networks.
        vae_steps: Updates of the autoencoder.
        steps: Updates of the U-Net.
        checkpoints: That are sampled, evenly spaced.
        samples: Of each.
        vae: An autoencoder that is there already; None: it is trained.
    """

    data: Path
    out: Path
    seed: int
    n_images: int
    config: str
    vae_steps: int
    steps: int
    checkpoints: int
    samples: int
    vae: Path | None

    @property
    def every(self) -> int:
        """Steps from a checkpoint to the next."""
        return self.steps // self.checkpoints

    def images(self, name: str) -> Path:
        """Return the folder of images of a kind: ``trained``, ``siblings``, ``valid`` or ``holdout``."""
        return self.out / "images" / name


def main() -> None:
    """Run what is missing, and count."""
    plan = parse()
    write_images(plan)
    vae = train(plan)
    ceiling = reconstruct(plan, vae)
    found = [audited(plan, vae, step) for step in range(plan.every, plan.steps + 1, plan.every)]
    siblings = against_siblings(plan, found[-1])
    write(plan, found, ceiling, siblings)


def parse() -> Plan:
    """Read the command line."""
    parser = door.make_parser("Train a model that memorizes, and see what the audit finds.")
    parser.add_argument("--data", type=Path, required=True, help="folder with splits.csv and brain/slices.csv")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-images", type=int, default=120, help="that are trained on; default: 120")
    parser.add_argument("--config", default="small", help="of the networks; default: small")
    parser.add_argument("--vae-steps", type=int, default=2000, help="updates of the autoencoder; default: 2,000")
    parser.add_argument("--steps", type=int, default=6000, help="updates of the U-Net; default: 6,000")
    parser.add_argument("--checkpoints", type=int, default=6, help="that are sampled; default: 6")
    parser.add_argument("--samples", type=int, default=300, help="of each checkpoint; default: 300")
    parser.add_argument("--vae", type=Path, help="an autoencoder of the same images, such as that of another seed")
    asked = parser.parse_args()
    if asked.steps % asked.checkpoints:
        door.fail(f"--steps {asked.steps} is no multiple of --checkpoints {asked.checkpoints}")
    asked.out.mkdir(parents=True, exist_ok=True)
    for name in ("data", "out", "vae"):
        if (path := getattr(asked, name)) is not None:
            setattr(asked, name, path.resolve())
    plan = Plan(**vars(asked))
    record = plan.out / "plan.json"
    text = json.dumps({name: value for name, value in vars(asked).items() if name not in ("data", "out")}, default=str)
    if record.is_file() and record.read_text() != text:
        door.fail(f"{plan.out} holds an experiment of other settings ({record.read_text()}): name another folder")
    record.write_text(text)
    return plan


def slices(data: Path, splits: Sequence[str]) -> Iterator[tuple[str, str, Path]]:
    """Yield split, person and file of the brain slices of some splits."""
    split_of = people(data, "brain", splits)
    with (data / "brain" / "slices.csv").open() as file:
        for row in csv.DictReader(file):
            if row["subject"] in split_of:
                yield split_of[row["subject"]], row["subject"], data / "brain" / row["path"]


def write_images(plan: Plan) -> None:
    """Copy images into folders by what they are for, and write the lists that both networks are trained by."""
    if (plan.out / "ldm.csv").is_file():
        return
    train = [(person, path) for _, person, path in slices(plan.data, ("train",))]
    if plan.n_images > len(train):
        door.fail(f"--n-images is {plan.n_images}: the train people have {len(train)} slices")
    chosen = set(np.random.default_rng([plan.seed, 1]).permutation(len(train))[: plan.n_images].tolist())
    named = [("trained" if i in chosen else "siblings", *entry) for i, entry in enumerate(train)]
    for split, name in (("tune", "valid"), ("test", "holdout")):
        named += [(name, person, path) for _, person, path in slices(plan.data, (split,))]
    rows = []
    for name, person, path in named:
        target = plan.images(name) / person / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        uid = f"{person}_{path.stem}"
        split = {"trained": "train", "siblings": "train", "valid": "valid"}.get(name)
        rows.append((name, {"image_path": target, "image_uid": uid, "split": split, "group": person}))
    for file, kinds in (("vae.csv", ("trained", "siblings", "valid")), ("ldm.csv", ("trained", "valid"))):
        with (plan.out / file).open("w", newline="") as stream:
            writer = csv.DictWriter(stream, ["image_path", "image_uid", "split", "group"])
            writer.writeheader()
            writer.writerows(row for name, row in rows if name in kinds)


def train(plan: Plan) -> Path:
    """Train both networks; returns the file of the autoencoder."""
    vae = plan.vae
    if vae is None:
        vae = plan.out / "vae" / "best.safetensors"
        door.call(
            ["train", "vae", "--config", plan.config, "--dataset-csv", plan.out / "vae.csv", "--out", plan.out / "vae",
             "--steps", plan.vae_steps, "--seed", plan.seed]
        )  # fmt: skip
    door.call(
        ["train", "ldm", "--config", plan.config, "--dataset-csv", plan.out / "ldm.csv", "--out", plan.out / "ldm",
         "--vae", vae, "--duplication", MULTIPLICITIES, "--steps", plan.steps, "--keep-every", plan.every,
         "--validate-every", plan.every, "--seed", plan.seed]
    )  # fmt: skip
    return vae


def reconstruct(plan: Plan, vae: Path) -> dict[str, object]:
    """Audit the autoencoder's reconstructions of the images that were trained on: the best that a copy can be."""
    import torch

    from deepssim.generative.data.records import load_images, read_dataset
    from deepssim.generative.sampling.run import to_bytes
    from deepssim.models.generative import load_vae
    from deepssim.train.generative.vae_loss import reconstruct as reconstructed

    folder = plan.out / "reconstructions"
    if not folder.is_dir():
        network, _ = load_vae(vae)
        records = read_dataset(plan.out / "ldm.csv").split("train")
        images = torch.from_numpy(load_images(records)[:, None])
        made = reconstructed(network, images, torch.device("cpu"))[:, 0].numpy()
        part = folder.with_name("reconstructions.part")
        part.mkdir(exist_ok=True)
        for record, image in zip(records, made, strict=True):
            Image.fromarray(to_bytes(image, "clip")).save(part / f"{record.uid}.png")
        part.rename(folder)
    return audit(plan, folder, plan.images("trained"), plan.out / "audits" / "reconstructions")


def audited(plan: Plan, vae: Path, step: int) -> Checkpoint:
    """Sample a checkpoint, audit the samples, and count."""
    made = plan.out / "samples" / f"step-{step:06d}"
    door.call(
        ["generate", "--vae", vae, "--diffusion", plan.out / "ldm" / f"step-{step:06d}.safetensors", "--n-images",
         plan.samples, "--out", made, "--seed", plan.seed]
    )  # fmt: skip
    result = plan.out / "audits" / made.name
    summary = audit(plan, made, plan.images("trained"), result)
    return measure(step, summary, result, made, plan.images("trained"), plan.out / "ldm" / "train-used.csv")


def against_siblings(plan: Plan, last: Checkpoint) -> dict[str, object]:
    """Audit the last samples against other slices of the same people, which the U-Net never saw."""
    return audit(plan, last.samples, plan.images("siblings"), plan.out / "audits" / "siblings")


def audit(plan: Plan, made: Path, real: Path, out: Path) -> dict[str, object]:
    """Audit a folder of images, unless that is done; returns the summary."""
    if not (out / "summary.json").is_file():
        door.call(
            ["audit", real, made, "--holdout", plan.images("holdout"), "--group-by", "parent", "--out", out, "--seed",
             plan.seed]
        )  # fmt: skip
    summary: dict[str, object] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary


def write(plan: Plan, found: list[Checkpoint], ceiling: dict[str, object], siblings: dict[str, object]) -> None:
    """Write figures, tables and pictures."""
    facts = results(found, ceiling, siblings, seed=plan.seed)
    write_json(plan.out / "results.json", facts)
    (plan.out / "results.md").write_text(markdown(facts), encoding="utf-8")
    save(draw_steps(facts), plan.out / "leaks-by-step.png")
    save(draw_multiplicity(facts), plan.out / "leaks-by-multiplicity.png")
    draw_copies(found[-1], plan.out / "copies.png")
    print(markdown(facts))
    print(f"{plan.out}: results.json, results.md, leaks-by-step.png, leaks-by-multiplicity.png, copies.png, audits/")


if __name__ == "__main__":
    main()
