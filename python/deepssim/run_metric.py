"""The metric of a run: which it is, loaded once, and the thresholds that go with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from deepssim.calibration import Calibration, Threshold, installed_calibrations, load_calibration
from deepssim.domain import AUTO, find_metric, metric_of
from deepssim.embed import Encoder
from deepssim.errors import StoreError, UsageError
from deepssim.images import Listing
from deepssim.metric import Metric, given_thresholds
from deepssim.store import Store

__all__ = ["RunMetric", "thresholds_for"]

DEFAULT_VERIFICATION = "verified"
_STAGES = {"embedding": "scores of embeddings", "verified": "S1 and S2 of registered images"}


class RunMetric:
    """The metric of a run.

    Args:
        asked: What the user asked for; see `deepssim.domain.find_metric`.
        device: Where it runs.
        threads: 0: all that this process may use.
    """

    def __init__(self, asked: str, device: str, threads: int) -> None:
        self.asked, self.device, self.threads = asked, device, threads
        self._chosen: Metric | None = None
        self.loaded: Encoder | None = None

    def choose(self, inputs: Sequence[Path | None], listing: Callable[[], Listing], say: Callable[[str], None]) -> None:
        """Find the metric that images are embedded with; where all inputs are stores, only one that was named.

        Args:
            inputs: Stores or images; None: a stream of images.
            listing: Gives images to look at.
            say: Told what was chosen, and why.

        Raises:
            StoreError: All inputs are stores, and what was named is not the metric of the first.
        """
        stores = [Store(path) for path in inputs if path is not None and Store.is_store(path)]
        if len(stores) == len(inputs) and self.asked == AUTO:
            return
        self._chosen = find_metric(self.asked, listing, stores=stores, threads=self.threads or None, say=say)
        if len(stores) == len(inputs) and self._chosen.hash != stores[0].metric["hash"]:
            raise StoreError(
                f"{stores[0].path} holds embeddings of the metric {stores[0].metric['name']}, and {self.asked} is "
                "another, or another version of it: give the bundle that the images were embedded with"
            )

    def encoder(self) -> Encoder:
        """Load the metric that was chosen, once."""
        if self.loaded is None:
            if self._chosen is None:
                raise UsageError("no metric was chosen: there are no images to embed")
            self.loaded = Encoder(self._chosen, device=self.device, threads=self.threads)
        return self.loaded

    def of(self, store: Store) -> Metric | None:
        """Return the metric of a store, None where it is not at hand."""
        known = self.loaded.metric if self.loaded is not None else self._chosen
        if known is not None:
            return known if known.hash == store.metric["hash"] else None
        try:
            return metric_of(store)
        except StoreError:
            return None

    def encoder_of(self, store: Store) -> Encoder | None:
        """Return an encoder of the metric of a store, None where it is not at hand."""
        metric = self.of(store)
        if metric is None or self.loaded is not None:
            return self.loaded if metric is not None else None
        return Encoder(metric, device="cpu", threads=self.threads)


def thresholds_for(
    store: Store,
    metric: Metric | None,
    *,
    is_verified: bool,
    given: Calibration | None,
    pair: tuple[float, float] | None,
    views: str | None,
) -> Calibration:
    """Return the thresholds of a run: those given, else those that come with verification or the metric.

    Args:
        store: Of the real images.
        metric: Its metric, None where it is not at hand.
        is_verified: Whether pairs are judged in image space.
        given: A calibration that the user chose.
        pair: Two values that the user gave, (near, exact): of a metric whose similarity is L2 distances, where the
            embeddings decide.
        views: How synthetic images are seen; None: the default of the metric.

    Raises:
        UsageError: What was given is for something else.
        StoreError: The metric is not at hand, and nothing was given.
        MetricError: The metric has no thresholds.
    """
    stage, name = "verified" if is_verified else "embedding", str(store.metric["name"])
    if pair is not None:
        near, exact = pair
        if not is_verified and store.metric["similarity"] == "l2":
            return given_thresholds(name, near, exact, "l2", "given by the user as L2 distances")
        return Calibration(name, Threshold(near), Threshold(exact), source="given by the user", stage=stage)
    if given is not None and given.stage != stage:
        raise UsageError(
            f"these thresholds ({given.source or given.metric}) are for {_STAGES[given.stage]}, but this run decides "
            f"by {_STAGES[stage]}: give others, or {'--no-verify' if is_verified else '--verify'}"
        )
    if given is not None:
        given.check_views(views or "none")
        return given
    if is_verified:
        # An encoder was made for one kind of image, and so were these thresholds.
        special = f"{DEFAULT_VERIFICATION}.{name}"
        is_known = metric is not None and special in installed_calibrations()
        return load_calibration(special if is_known else DEFAULT_VERIFICATION)
    if metric is None:
        raise StoreError(
            f"{store.path} was made by another version of the metric {name}, or by one that is not at hand: embed the "
            "images again, or give --thresholds NEAR,EXACT"
        )
    return metric.calibration(views)
