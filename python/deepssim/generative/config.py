"""Sizes of a latent diffusion model and of its training: a TOML file, one of the package's or of the user's own.

The defaults of all classes are the published configuration (arXiv 2509.16582, and the reference implementation), so a
file says only what differs from it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, ClassVar, Self

from deepssim.errors import UsageError
from deepssim.generative.section import FIRST_BATCH, Section, build, shown, typed
from deepssim.images.text import one_line, some

__all__ = [
    "SCHEDULES",
    "DiffusionConfig",
    "DiscriminatorConfig",
    "GenerativeConfig",
    "LdmTrainingConfig",
    "UnetConfig",
    "VaeConfig",
    "VaeTrainingConfig",
    "config_names",
    "read_config",
]

SCHEDULES = ("scaled_linear", "linear")
_MOST_CONFIG_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class VaeConfig(Section):
    """Size of the variational autoencoder (Rombach et al. 2022, the KL-regularised one).

    Attributes:
        latent_channels: Channels of a latent.
        channels: Channels of each level; each level after the first halves rows and columns.
        res_blocks: Residual blocks of a level.
        norm_groups: Groups of the group normalisation; they divide the channels.
        norm_eps: Added to variances.
        attention_levels: Whether a level has self-attention.

    Raises:
        UsageError: Fields that cannot be; all are named.

    Example:
        >>> VaeConfig().factor
        4
    """

    latent_channels: int = 3
    channels: tuple[int, ...] = (64, 128, 128)
    res_blocks: int = 2
    norm_groups: int = 32
    norm_eps: float = 1e-6
    attention_levels: tuple[bool, ...] = (False, False, False)

    section: ClassVar[str] = "vae"

    @property
    def factor(self) -> int:
        """Pixels of an image to one element of a latent, along each side."""
        return 1 << (len(self.channels) - 1)

    def _faults(self) -> Iterator[str]:
        yield from self._below(1, "latent_channels", "channels", "res_blocks", "norm_groups")
        yield from self._above(16_384, "latent_channels", "channels")
        yield from self._above(64, "res_blocks")
        yield from self._not_positive("norm_eps")
        yield from self._levels("attention_levels")
        yield from self._groups()


@dataclass(frozen=True, slots=True)
class UnetConfig(Section):
    """Size of the U-Net that finds the noise of latents (Rombach et al. 2022).

    Attributes:
        channels: Channels of each level; each level after the first halves rows and columns.
        res_blocks: Residual blocks of a level.
        attention_levels: Whether a level attends to itself and to the condition.
        head_channels: Channels of an attention head, by level; 0 where there is no attention. The lowest level's also
            serves the middle, which always attends.
        norm_groups: Groups of the group normalisation; they divide the channels.
        norm_eps: Added to variances.
        resblock_updown: Whether residual blocks halve and double the sides, instead of convolutions.
        upcast_attention: Whether attention is computed in float32 also where the rest is not.
        transformer_layers: Layers of an attention.

    Raises:
        UsageError: Fields that cannot be; all are named.

    Example:
        >>> UnetConfig().divisor
        4
    """

    channels: tuple[int, ...] = (256, 512, 768)
    res_blocks: int = 2
    attention_levels: tuple[bool, ...] = (False, True, True)
    head_channels: tuple[int, ...] = (0, 512, 768)
    norm_groups: int = 32
    norm_eps: float = 1e-6
    resblock_updown: bool = True
    upcast_attention: bool = True
    transformer_layers: int = 1

    section: ClassVar[str] = "unet"

    @property
    def divisor(self) -> int:
        """What rows and columns of a latent must divide by; they are padded until they do."""
        return 1 << (len(self.channels) - 1)

    def _faults(self) -> Iterator[str]:
        yield from self._below(1, "channels", "res_blocks", "norm_groups", "transformer_layers")
        yield from self._above(16_384, "channels")
        yield from self._above(64, "res_blocks", "transformer_layers")
        yield from self._below(0, "head_channels")
        yield from self._not_positive("norm_eps")
        yield from self._levels("attention_levels", "head_channels")
        yield from self._groups()
        if len(self.channels) != len(self.attention_levels) or len(self.channels) != len(self.head_channels):
            return
        for level, (channels, head) in enumerate(zip(self.channels, self.head_channels, strict=True)):
            is_last = level == len(self.channels) - 1
            if (self.attention_levels[level] or is_last) and (head < 1 or channels % head):
                why = ", which the middle also uses," if is_last else ""
                yield f"unet.head_channels[{level}] is {head}{why} and must divide the {channels} channels of its level"


@dataclass(frozen=True, slots=True)
class DiscriminatorConfig(Section):
    """Size of the discriminator of patches that the autoencoder is trained against (Isola et al. 2017).

    Attributes:
        channels: Channels of the first convolution; they double with each layer.
        layers: Layers, of which all but the last halve rows and columns.

    Raises:
        UsageError: Fields that cannot be; all are named.

    Example:
        >>> DiscriminatorConfig().smallest
        24
    """

    channels: int = 32
    layers: int = 3

    section: ClassVar[str] = "discriminator"

    @property
    def smallest(self) -> int:
        """Rows and columns that an image must have at least."""
        # The first convolution and all layers but the last halve; the last and the output each take one off.
        return 3 << self.layers

    def _faults(self) -> Iterator[str]:
        yield from self._below(1, "channels", "layers")
        yield from self._above(1024, "channels")
        yield from self._above(8, "layers")


@dataclass(frozen=True, slots=True)
class DiffusionConfig(Section):
    """How latents become noise (Ho et al. 2020); the U-Net learns that noise.

    Attributes:
        steps: Steps from a latent to noise.
        schedule: ``"scaled_linear"``: the square roots of the betas are evenly spaced; ``"linear"``: the betas are.
        beta_start: Variance that the first step adds.
        beta_end: Variance that the last step adds.

    Raises:
        UsageError: Fields that cannot be; all are named.

    Example:
        >>> DiffusionConfig().as_dict()
        {'steps': 1000, 'schedule': 'scaled_linear', 'beta_start': 0.0015, 'beta_end': 0.0205}
    """

    steps: int = 1000
    schedule: str = "scaled_linear"
    beta_start: float = 0.0015
    beta_end: float = 0.0205

    section: ClassVar[str] = "diffusion"

    def _faults(self) -> Iterator[str]:
        yield from self._below(2, "steps")
        yield from self._above(1_000_000, "steps")
        if self.schedule not in SCHEDULES:
            yield f"diffusion.schedule is {shown(self.schedule)}: it must be one of {', '.join(SCHEDULES)}"
        if not 0 < self.beta_start <= self.beta_end < 1:
            yield (
                f"diffusion.beta_start is {self.beta_start:g} and diffusion.beta_end {self.beta_end:g}: it must be "
                "0 < beta_start <= beta_end < 1"
            )


@dataclass(frozen=True, slots=True)
class VaeTrainingConfig(Section):
    """How the autoencoder is trained.

    The loss is L1 + kl_weight KL + perceptual_weight perceptual + adversarial_weight least-squares adversarial.

    Attributes:
        batch_size: Images that go through the networks at once.
        micro_batch: `batch_size` over this is the number of batches of an update, as in the reference implementation,
            whose ``max_batch_size`` it is: 2 batches of 16 as published.
        epochs: Passes over the images.
        learning_rate: Adam's, of the autoencoder and of the discriminator.
        kl_weight: Of the Kullback-Leibler divergence, summed over the elements of a latent.
        perceptual_weight: Of the distance between features of a network.
        adversarial_weight: Of the discriminator's judgement; 0: there is none.
        adversarial_warm_up: Updates before the discriminator's judgement counts.
        clip: Largest norm of the gradient; 0: any.
        ema: Decay of the average of the weights that is kept beside them; 0: none.

    Raises:
        UsageError: Fields that cannot be; all are named.

    Example:
        >>> VaeTrainingConfig(batch_size=4, micro_batch=2).epochs
        100
    """

    batch_size: int = 16
    micro_batch: int = 8
    epochs: int = 100
    learning_rate: float = 1e-4
    kl_weight: float = 1e-6
    perceptual_weight: float = 0.1
    adversarial_weight: float = 0.125
    adversarial_warm_up: int = 0
    clip: float = 0.0
    ema: float = 0.0

    section: ClassVar[str] = "vae_training"

    def _faults(self) -> Iterator[str]:
        yield from self._below(1, "batch_size", "micro_batch", "epochs")
        yield from self._below(0, "kl_weight", "perceptual_weight", "adversarial_weight", "adversarial_warm_up", "clip")
        yield from self._not_positive("learning_rate")
        yield from self._outside(0, 1, "ema")
        if self.micro_batch >= 1 and self.batch_size % self.micro_batch:
            yield (
                f"vae_training.micro_batch is {self.micro_batch}: it must divide vae_training.batch_size = "
                f"{self.batch_size}"
            )


@dataclass(frozen=True, slots=True)
class LdmTrainingConfig(Section):
    """How the U-Net is trained.

    Attributes:
        batch_size: Latents of an update.
        epochs: Passes over the latents, each as often as its multiplicity says.
        learning_rate: AdamW's.
        weight_decay: AdamW's.
        clip: Largest norm of the gradient; 0: any.
        ema: Decay of the average of the weights, which is what is sampled from; 0: none.
        scale: What latents are multiplied by: ``"first-batch"`` (one over the standard deviation of the first batch)
            or a number.
        drop_condition: Part of the latents whose condition is left out, for classifier-free guidance (Ho and
            Salimans 2022).

    Raises:
        UsageError: Fields that cannot be; all are named.

    Example:
        >>> LdmTrainingConfig(scale=1).scale
        1.0
    """

    batch_size: int = 8
    epochs: int = 100
    learning_rate: float = 2.5e-5
    weight_decay: float = 0.01
    clip: float = 0.0
    ema: float = 0.9999
    scale: str | float = FIRST_BATCH
    drop_condition: float = 0.0

    section: ClassVar[str] = "ldm_training"

    def _faults(self) -> Iterator[str]:
        yield from self._below(1, "batch_size", "epochs")
        yield from self._below(0, "weight_decay", "clip")
        yield from self._not_positive("learning_rate")
        yield from self._outside(0, 1, "ema", "drop_condition")
        if not (self.scale == FIRST_BATCH or (isinstance(self.scale, float) and self.scale > 0)):
            yield f"ldm_training.scale is {shown(self.scale)}: it must be '{FIRST_BATCH}' or a number above 0"


_SECTIONS: Mapping[str, type[Section]] = {
    kind.section: kind
    for kind in (VaeConfig, UnetConfig, DiscriminatorConfig, DiffusionConfig, VaeTrainingConfig, LdmTrainingConfig)
}


@dataclass(frozen=True, slots=True)
class GenerativeConfig:
    """A latent diffusion model and its training, as a configuration file gives them.

    Attributes:
        name: Of the configuration: that of the package's file, or the stem of the user's.
        size: Rows and columns of the images, in pixels; None: those that the data has.
        vae: The autoencoder.
        unet: The U-Net.
        discriminator: What the autoencoder is trained against.
        diffusion: How latents become noise.
        vae_training: How the autoencoder is trained.
        ldm_training: How the U-Net is trained.

    Raises:
        UsageError: The size cannot be.
    """

    name: str
    size: tuple[int, int] | None = None
    vae: VaeConfig = field(default_factory=VaeConfig)
    unet: UnetConfig = field(default_factory=UnetConfig)
    discriminator: DiscriminatorConfig = field(default_factory=DiscriminatorConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    vae_training: VaeTrainingConfig = field(default_factory=VaeTrainingConfig)
    ldm_training: LdmTrainingConfig = field(default_factory=LdmTrainingConfig)

    def __post_init__(self) -> None:
        """Check the size against the autoencoder."""
        if self.size is None:
            return
        size, fault = typed(self.size, (1, 1))
        if fault or len(size) != 2 or min(size) < 1:
            raise UsageError(f"size is {shown(self.size)}: it must be [rows, columns], both at least 1")
        object.__setattr__(self, "size", size)
        if any(side % self.vae.factor for side in size):
            fitting = " x ".join(str(-(-side // self.vae.factor) * self.vae.factor) for side in size)
            raise UsageError(
                f"size is {size[0]} x {size[1]}: rows and columns must be multiples of {self.vae.factor}, since "
                f"vae.channels has {len(self.vae.channels)} levels; the next that is: {fitting}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON and TOML have it.

        Example:
            >>> GenerativeConfig("mine", (64, 64)).as_dict()["discriminator"]
            {'channels': 32, 'layers': 3}
        """
        told: dict[str, Any] = {"name": self.name, "size": None if self.size is None else list(self.size)}
        return told | {section: getattr(self, section).as_dict() for section in _SECTIONS}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], name: str) -> Self:
        """Build a configuration of tables, those of a file or of `as_dict`.

        Args:
            value: ``size`` and the sections; what is not there keeps its default.
            name: Of the configuration.

        Raises:
            UsageError: Keys or sections that are not known, or values that cannot be; all are named.

        Example:
            >>> GenerativeConfig.from_dict({"vae": {"latent_channels": 4}}, "mine").vae.latent_channels
            4
        """
        faults: list[str] = []
        unknown = [key for key in value if key not in {"name", "size", *_SECTIONS}]
        if unknown:
            faults.append(f"{some(unknown)}: not known; known are size, {', '.join(_SECTIONS)}")
        built: dict[str, Section] = {}
        for section, kind in _SECTIONS.items():
            try:
                built[section] = build(kind, value.get(section, {}))
            except UsageError as error:
                faults.append(str(error))
        size = value.get("size")
        try:
            # A size can only be judged where the autoencoder stands.
            config = cls(name, size, **(built if "vae" in built else {}))  # type: ignore[arg-type]
        except UsageError as error:
            faults.append(str(error))
        if faults:
            raise UsageError("; ".join(faults))
        return config


def config_names() -> tuple[str, ...]:
    """Return the names of the package's configurations.

    Example:
        >>> "paper-brain" in config_names()
        True
    """
    folder = resources.files("deepssim") / "configs"
    return tuple(sorted(item.name.removesuffix(".toml") for item in folder.iterdir() if item.name.endswith(".toml")))


def read_config(name: str | Path) -> GenerativeConfig:
    """Read a configuration.

    Args:
        name: One of `config_names`, or a TOML file: whatever ends in ``.toml`` or has a folder in its name.

    Raises:
        UsageError: There is no such configuration or file, it is no TOML, or it says what cannot be: all faults are
            named.

    Example:
        >>> config = read_config("paper-brain")
        >>> config.size, config.vae.channels, config.unet.head_channels
        ((136, 112), (64, 128, 128), (0, 512, 768))
    """
    text = str(name)
    if text in config_names():
        data = (resources.files("deepssim") / "configs" / f"{text}.toml").read_bytes()
        return _parsed(data, text, f"the configuration {text}")
    path = Path(text)
    if path.suffix != ".toml" and path.name == text:
        raise UsageError(
            f"there is no configuration '{one_line(text, 60)}': name one of {', '.join(config_names())}, or a file "
            "that ends in .toml"
        )
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_CONFIG_BYTES + 1)
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"the configuration '{one_line(text)}' cannot be read: {what}") from error
    if len(data) > _MOST_CONFIG_BYTES:
        raise UsageError(f"'{one_line(text)}' has more than {_MOST_CONFIG_BYTES:,} bytes: it is no configuration")
    return _parsed(data, path.stem, f"the configuration '{one_line(text)}'")


def _parsed(data: bytes, name: str, where: str) -> GenerativeConfig:
    try:
        table = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no TOML: {one_line(str(error))}") from error
    if "name" in table:
        del table["name"]
    try:
        return GenerativeConfig.from_dict(table, name)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from error
