"""Which metric bundle a name means, in a domain, and the thresholds that were published for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.membench.collection import DOMAINS
from benchmarks.membench.systems import Cuts
from deepssim.calibration import installed_calibrations, load_calibration
from deepssim.errors import MetricError
from deepssim.metric import DEFAULT_METRIC, installed_metrics, load_metric

# What answers without a metric bundle.
IN_IMAGES = ("ssim", "fsim", "verifier", "pipeline")
# The installed metric that has the name of the domain.
ENCODER = "encoder"


def parse_bundle(text: str) -> tuple[str, str]:
    """Read ``NAME=FILE``, or ``NAME:DOMAIN=FILE`` for one domain.

    Raises:
        ValueError: It is neither, or there is no such domain.
    """
    name, is_given, path = text.partition("=")
    system, _, domain = name.partition(":")
    if not (is_given and system and path) or (":" in name and domain not in DOMAINS):
        raise ValueError(f"{text!r} is not NAME=FILE or NAME:DOMAIN=FILE with one of {', '.join(DOMAINS)}")
    if system in IN_IMAGES:
        raise ValueError(f"{system} needs no bundle: give {text!r} another name")
    return name, path


def find_bundle(system: str, domain: str, bundles: Mapping[str, str]) -> str | None:
    """Return the name or path of the metric that a system is in a domain; None: it has none there.

    Args:
        system: As the tables show it.
        domain: One of `DOMAINS`.
        bundles: Path by ``NAME`` or ``NAME:DOMAIN``.
    """
    for name in (f"{system}:{domain}", system):
        if name in bundles:
            return bundles[name]
    if any(name.startswith(f"{system}:") for name in bundles):
        return None
    if system == ENCODER:
        return domain if domain in installed_metrics() else None
    return system


def find_screen(screen: str, domain: str, bundles: Mapping[str, str]) -> str | None:
    """Return the bundle that finds candidates: as an audit does, the default metric where there is no encoder."""
    found = find_bundle(screen, domain, bundles)
    return DEFAULT_METRIC if found is None and screen == ENCODER else found


def published_cuts(system: str, bundle: str) -> list[Cuts]:
    """Return thresholds that come with a metric: those that lie beside its file, and those installed under its name."""
    metric = load_metric(bundle)
    found = []
    try:
        source = bundle if bundle in installed_metrics() else f"{system}, its own"
        found.append(Cuts(*metric.calibration().cuts(), source))
    except MetricError:
        pass  # there are none: thresholds are chosen on other people alone
    if system in set(installed_calibrations()) - {bundle}:
        found.append(Cuts(*load_calibration(system).cuts(), system))
    return found


def verified_cuts(names: Sequence[str], domain: str) -> list[Cuts]:
    """Return the calibrations of the stage verified that are for a domain or for all.

    Raises:
        ValueError: One is of another stage.
    """
    found = []
    for name in names:
        calibration = load_calibration(name)
        if calibration.stage != "verified":
            raise ValueError(f"the calibration {name} is not of the stage verified")
        meant = name.rpartition(".")[2]
        if meant == domain or meant not in DOMAINS:
            found.append(Cuts(*calibration.cuts(), name))
    return found
