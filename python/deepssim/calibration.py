"""Thresholds: what they are, how they compare, and where they come from.

A calibration is data of its own, apart from the metric bundle: choosing other thresholds makes no store
of embeddings stale.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

import numpy as np

from deepssim.errors import MetricError, UsageError

FORMAT = "deepssim-calibration"
VERSION = 2
# A file of version 1 has neither a curve nor an interval, and its near threshold is always the lower one.
READABLE = (1, 2)
SUFFIX = ".calibration.json"
LABELS = ("unrelated", "near", "exact")
STAGES = ("embedding", "verified")
_TEXTS = ("metric", "source", "domain", "how")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 <= value <= 1.0


@dataclass(frozen=True, slots=True)
class Threshold:
    """A score from which on a pair carries a label.

    Attributes:
        value: In units of the metric's score.
        comparison: ``">="`` or ``">"``: how a score is compared with it.

    Example:
        >>> Threshold(0.85, ">").cut() > 0.85
        True
    """

    value: float
    comparison: str = ">="

    def __post_init__(self) -> None:
        if self.comparison not in (">", ">="):
            raise MetricError(f"a threshold compares with > or >=, not {self.comparison!r}")
        if not _is_number(self.value) or not math.isfinite(self.value):
            raise MetricError(f"a threshold must be a finite number, not {self.value!r}")

    def cut(self) -> float:
        """Return the smallest float32 score that passes, so that ``score >= cut`` is the comparison."""
        cut = np.float32(self.value)
        passes = float(cut) >= self.value if self.comparison == ">=" else float(cut) > self.value
        return float(cut if passes else np.nextafter(cut, np.float32(np.inf)))


@dataclass(frozen=True, slots=True)
class Curve:
    """What each near threshold would do to the images that a calibration was made from.

    Attributes:
        cuts: ``(n,)`` rising thresholds, in units of the metric's score (of S1 where pairs are verified).
        unrelated: ``(n,)`` share of unrelated images whose nearest score reaches each; None: there were none.
        copies: ``(n,)`` share of copies that do, likewise.

    Example:
        >>> Curve((0.5, 0.7), unrelated=(0.2, 0.01)).unrelated
        (0.2, 0.01)
    """

    cuts: tuple[float, ...]
    unrelated: tuple[float, ...] | None = None
    copies: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("cuts", "unrelated", "copies"):
            values = getattr(self, name)
            if values is None and name != "cuts":
                continue
            numbers = tuple(float(value) for value in values)
            if len(numbers) != len(self.cuts) or not all(math.isfinite(value) for value in numbers):
                raise MetricError(f"a curve has one finite number of {name} for each of its {len(self.cuts)} cuts")
            object.__setattr__(self, name, numbers)
        if any(a >= b for a, b in pairwise(self.cuts)):
            raise MetricError("the cuts of a curve must rise")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The thresholds of a metric and their evidence.

    Attributes:
        metric: Name of the metric that they are for.
        near: From here on a pair is a near copy; of S1 where the stage is ``"verified"``. Where it is the exact one
            too, no pair is ever near.
        exact: From here on a pair is an exact copy; of S2, and of near copies only, where the stage is
            ``"verified"`` (see `deepssim.evidence`).
        source: Where the thresholds come from, in a few words.
        stage: ``"embedding"`` (scores of the search) or ``"verified"`` (scores in image space).
        domain: The kind of images that they were chosen on.
        base_size: Real images that they were chosen against: the nearest of more images scores higher.
        false_positive_rate: Share of unrelated images whose nearest score passed `near` there.
        how: How they were found, in a sentence or two.
        views: How synthetic images were seen: ``"none"``, ``"flips"`` or ``"bank"`` (`deepssim.screening`); the
            nearest of more views scores higher. None: not said.
        false_positive_interval: 95 % interval of `false_positive_rate`, low and high.
        curve: What other near thresholds would have done.
    """

    metric: str
    near: Threshold
    exact: Threshold
    source: str
    stage: str = "embedding"
    domain: str = ""
    base_size: int | None = None
    false_positive_rate: float | None = None
    how: str = ""
    views: str | None = None
    false_positive_interval: tuple[float, float] | None = None
    curve: Curve | None = None

    def __post_init__(self) -> None:
        if self.stage not in STAGES:
            raise MetricError(f"a calibration is of the stage {' or '.join(STAGES)}, not {self.stage!r}")
        # A wrong one would stop an audit at its report, hours later.
        faults = [f"{name} is no text" for name in _TEXTS if not isinstance(getattr(self, name), str)]
        if self.views is not None and not isinstance(self.views, str):
            faults.append("views is no text")
        size, rate, bounds = self.base_size, self.false_positive_rate, self.false_positive_interval
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            faults.append(f"base_size is {size!r}, no whole number of images")
        if rate is not None and not _is_share(rate):
            faults.append(f"false_positive_rate is {rate!r}, no number from 0 to 1")
        if bounds is not None and not (all(map(_is_share, bounds)) and bounds[0] <= bounds[1]):
            faults.append(f"false_positive_interval is {list(bounds)}, no lower and upper bound from 0 to 1")
        if faults:
            raise MetricError(f"this is no calibration: {'; '.join(faults)}")
        if self.stage == "embedding" and self.near.cut() > self.exact.cut():
            raise UsageError(
                f"the near threshold ({self.near.value}) must not lie over the exact one ({self.exact.value})"
            )

    def cuts(self) -> tuple[float, float]:
        """Return the float32 scores from which on a pair is near and exact."""
        return self.near.cut(), self.exact.cut()

    def check_views(self, views: str) -> None:
        """Refuse thresholds that were chosen for other views.

        Raises:
            UsageError: They were; says what to choose.
        """
        if self.views not in (None, views):
            raise UsageError(
                f"the {self.source} is for --views {self.views}, not {views}: choose --views {self.views}, or other "
                "thresholds with --calibration or --thresholds"
            )

    def as_dict(self) -> dict[str, Any]:
        """Return what `run.json` and `summary.json` say of the thresholds; the curve stays in the file."""
        value = asdict(self)
        for name in ("metric", "curve"):
            value.pop(name)
        return value

    def write(self, path: Path) -> None:
        """Write as a calibration file; nothing is said of a curve or an interval where there is none."""
        value = {"format": FORMAT, "version": VERSION, **asdict(self)}
        for name in ("false_positive_interval", "curve"):
            if value[name] is None:
                value.pop(name)
        path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a calibration file.

        Raises:
            MetricError: It is missing or is no calibration of this version.
        """
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if value.pop("format") != FORMAT or value.pop("version") not in READABLE:
                raise ValueError("another format or version")
            near, exact = Threshold(**value.pop("near")), Threshold(**value.pop("exact"))
            if value.get("curve") is not None:
                value["curve"] = Curve(**value["curve"])
            if value.get("false_positive_interval") is not None:
                low, high = value["false_positive_interval"]
                value["false_positive_interval"] = float(low), float(high)
            return cls(near=near, exact=exact, **value)
        except FileNotFoundError:
            raise MetricError(f"the calibration {path} is missing") from None
        except (MetricError, UsageError) as error:
            raise MetricError(f"{path}: {error}") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise MetricError(f"{path} is not a calibration of this version: {error}") from error


def installed_calibrations() -> list[str]:
    """Return the names of the calibrations that come with the package, such as ``pixel.chest``."""
    folder = resources.files("deepssim") / "metrics"
    return sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))


def load_calibration(name_or_path: str) -> Calibration:
    """Read a calibration by the name of an installed one or the path of a file.

    Raises:
        UsageError: There is none.
        MetricError: It is damaged.

    Example:
        >>> load_calibration("pixel.chest").metric
        'pixel'
    """
    if name_or_path in installed_calibrations():
        with resources.as_file(resources.files("deepssim") / "metrics" / f"{name_or_path}{SUFFIX}") as path:
            return Calibration.read(path)
    if not Path(name_or_path).is_file():
        raise UsageError(
            f"no calibration {name_or_path!r}: give a file or one of {', '.join(installed_calibrations())}"
        )
    return Calibration.read(Path(name_or_path))


def parse_thresholds(text: str) -> tuple[float, float]:
    """Read two thresholds that a user gave as ``NEAR,EXACT``.

    Raises:
        UsageError: The text is not two numbers.

    Example:
        >>> parse_thresholds(".9,.97")
        (0.9, 0.97)
    """
    try:
        near, exact = (Threshold(float(part)).value for part in text.split(","))
    except (ValueError, MetricError):
        raise UsageError(f"thresholds are two numbers, NEAR,EXACT, not {text!r}") from None
    return near, exact
