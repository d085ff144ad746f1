"""Verification: the nearest candidates of a synthetic image, registered onto it and judged in image space.

Search finds candidates by their embeddings; whether one is a copy is decided by the images themselves: S1, the
correlation of the locally normalised images after registration, tells copies from others, and S2, the low end of their
local correlation, exact copies from near ones (`deepssim.image_ops.evidence`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from deepssim.aspect import are_across, turned_first
from deepssim.base import Found
from deepssim.calibration import Calibration
from deepssim.errors import StoreError, UsageError
from deepssim.image_ops import (
    Evidence,
    RegisteredSimilarity,
    Registrar,
    Registration,
    Transform,
    evidence_maps,
    float_grey,
    map_on_threads,
    registered_similarity,
    resize_area,
    warp,
)
from deepssim.matching import Reference, Subject
from deepssim.parts import EVIDENCE_FIELDS, S1, S2, Floats, Ints, Levels, Part
from deepssim.working import WORKING_SIDE, Working

# Prepared for registration at a time: 6 to 10 bytes for each pixel of these images, and 4 of grey values.
BATCH_PIXELS = 2**22
PREPARED_BYTES_PER_PIXEL = 14
# A pair compared at fewer rows or columns could agree by chance: a few pixels fit any image.
LEAST_SIDE = 32
_STATISTICS = frozenset({*(f.name for f in fields(Evidence)), "ssim", "fsim"})


def _working(subject: Subject) -> Working:
    if subject.working is None:
        raise StoreError("a synthetic image to be verified has no working image")
    return subject.working


class Verifier:
    """Registers and judges pairs.

    Args:
        calibration: Thresholds of the stage ``"verified"``: `near` for S1, `exact` for S2.
        threads: 0: all that this process may use.

    Raises:
        UsageError: The calibration is of another stage.
    """

    def __init__(self, calibration: Calibration, threads: int = 0) -> None:
        if calibration.stage != "verified":
            raise UsageError(
                f"the calibration of {calibration.metric} is for the stage {calibration.stage}: verification needs one "
                "of the stage verified"
            )
        self.calibration, self.threads = calibration, threads

    @staticmethod
    def bytes(k: int) -> int:
        """Return the memory that verification takes for k candidates an image, about, in bytes."""
        return PREPARED_BYTES_PER_PIXEL * (BATCH_PIXELS + (k + 1) * WORKING_SIDE**2)

    def levels(self, evidence: Floats) -> Levels:
        """Return the level of each pair; 0 where there is none (NaN).

        Args:
            evidence: ``(..., n_fields)`` by `EVIDENCE_FIELDS`.
        """
        near, exact = (np.float32(cut) for cut in self.calibration.cuts())
        is_near = evidence[..., S1] >= near
        return is_near.astype(np.int8) + (is_near & (evidence[..., S2] >= exact)).astype(np.int8)

    def judge(self, first_row: int, found: Found, subjects: Sequence[Subject], real: Reference,
              control: Sequence[tuple[Reference, Ints]]) -> Part:  # fmt: skip
        """Verify candidates and order them by what was seen.

        Args:
            first_row: Number of the first synthetic row.
            found: Its candidates are ``scores`` and ``ids``, ``(n, k)``.
            subjects: The n synthetic images.
            real: The set that candidates are positions in.
            control: Sets of the control with their candidates ``(n, k)``; empty without a holdout.
        """
        scores, rows = found.scores, found.ids
        evidence = self.examine(subjects, rows, real)
        order = np.lexsort((rows, -_values(evidence, rows)), axis=1)
        scores, rows = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
        evidence = np.take_along_axis(evidence, order[:, :, np.newaxis], axis=1)
        levels = self.levels(evidence)
        queries, places = np.nonzero(levels > 0)
        listed = rows[queries, places]
        best = self._control(subjects, real, rows, evidence, control)
        return Part(
            first_row,
            scores,
            rows,
            levels,
            order.astype(np.int64) + 1,
            evidence,
            queries,
            listed,
            scores[queries, places],
            levels[queries, places],
            evidence[queries, places],
            listed,
            np.stack([np.ones(len(listed), np.int64), (levels[queries, places] > 1).astype(np.int64)], axis=1),
            evidence[queries, places, S1],
            queries + first_row,
            *best,
        )

    def _control(
        self, subjects: Sequence[Subject], real: Reference, rows: Ints, evidence: Floats,
        control: Sequence[tuple[Reference, Ints]],
    ) -> tuple[Floats, Levels, Ints]:  # fmt: skip
        """Return value, level and position of the best candidate in each set of the control."""
        if not control:
            return np.zeros((0, 2), np.float32), np.zeros((0, 2), np.int8), np.zeros((0, 2), np.int64)
        values, levels, best = [], [], []
        for reference, candidates in control:
            known = reference is real
            ids = rows if known else candidates
            seen = evidence if known else self.examine(subjects, candidates, reference)
            value = _values(seen, ids)
            place = np.lexsort((ids, -value), axis=1)[:, :1]
            values.append(np.take_along_axis(value, place, axis=1)[:, 0])
            levels.append(np.take_along_axis(self.levels(seen), place, axis=1)[:, 0])
            best.append(np.take_along_axis(ids, place, axis=1)[:, 0])
        return np.stack(values, axis=1), np.stack(levels, axis=1), np.stack(best, axis=1)

    def examine(self, subjects: Sequence[Subject], rows: Ints, reference: Reference) -> Floats:
        """Register real images onto synthetic ones and measure how they agree.

        Two images of different sizes are compared at the smaller number of rows and of columns, by area averaging;
        under `LEAST_SIDE` of either nothing is measured. Where one stands and the other lies, the real one is turned
        by a quarter with its frame first.

        Args:
            subjects: n synthetic images.
            rows: ``(n, k)`` positions in `reference`, -1: none.
            reference: The real images; its store has working images.

        Returns:
            ``(n, k, n_fields)`` by `EVIDENCE_FIELDS`, NaN where there is no candidate. Shifts are pixels of the
            synthetic image as it was given. Where nothing was measured, S1 and S2 are -1 and the overlap is 0.
        """
        out = np.full((*rows.shape, len(EVIDENCE_FIELDS)), np.nan, np.float32)
        first = 0
        while first < len(subjects):
            last, pixels = first, 0
            while last < len(subjects) and (last == first or pixels < BATCH_PIXELS):
                pixels += _working(subjects[last]).size * (1 + int(np.count_nonzero(rows[last] >= 0)))
                last += 1
            self._examine_batch(subjects[first:last], rows[first:last], reference, out[first:last])
            first = last
        return out

    def _examine_batch(self, subjects: Sequence[Subject], rows: Ints, reference: Reference, out: Floats) -> None:
        known = np.unique(rows[rows >= 0])
        real = {int(row): reference.store.working_image(int(reference.rows[row])) for row in known}
        by_frame: dict[_Frame, list[tuple[int, int]]] = defaultdict(list)
        for i, place in zip(*(axis.tolist() for axis in np.nonzero(rows >= 0)), strict=True):
            by_frame[_Frame.of(_working(subjects[i]), real[int(rows[i, place])])].append((i, place))
        for frame, pairs in by_frame.items():
            size = frame.size
            if min(size) < LEAST_SIDE:
                for i, place in pairs:
                    out[i, place] = _NOTHING
                continue
            numbers = {row: n for n, row in enumerate(sorted({int(rows[i, place]) for i, place in pairs}))}
            moving = [frame.fit_real(real[row]) for row in numbers]
            registrar = Registrar(moving, threads=self.threads)
            images = sorted({i for i, _ in pairs})
            candidates = [[place for at, place in pairs if at == i] for i in images]
            fixed = [frame.fit(_working(subjects[i])) for i in images]
            chosen = [
                [numbers[int(rows[i, place])] for place in places] for i, places in zip(images, candidates, strict=True)
            ]
            found = registrar.verify_many(fixed, chosen, threads=self.threads)
            alike = self._similarities(fixed, moving, chosen, found)
            for i, places, answers, similarities in zip(images, candidates, found, alike, strict=True):
                down, right = subjects[i].height / size[0], subjects[i].width / size[1]
                for place, (registration, evidence), similarity in zip(places, answers, similarities, strict=True):
                    moved = frame.of_real(registration.transform)
                    moved = replace(
                        moved, shift_rows=moved.shift_rows * down, shift_columns=moved.shift_columns * right
                    )
                    out[i, place] = (*_statistics(evidence), similarity.ssim, similarity.fsim, *_numbers(moved))

    def _similarities(
        self,
        fixed: Sequence[NDArray[np.float32]],
        moving: Sequence[NDArray[np.float32]],
        chosen: Sequence[Sequence[int]],
        found: Sequence[Sequence[tuple[Registration, Evidence]]],
    ) -> list[list[RegisteredSimilarity]]:
        """Compare registered pairs pixel against pixel; one list for each fixed image."""

        def compare(i: int) -> list[RegisteredSimilarity]:
            return [
                registered_similarity(fixed[i], moving[number], registration.transform)
                for number, (registration, _) in zip(chosen[i], found[i], strict=True)
            ]

        return map_on_threads(compare, range(len(fixed)), self.threads)


# As dataclasses.astuple, which copies each number deeply: a tenth of the time of verification.
_statistics = attrgetter(*(field.name for field in fields(Evidence)))
_numbers = attrgetter(*(field.name for field in fields(Transform)))
_NOTHING = tuple(
    {"overlap": 0.0, "scale": 1.0}.get(name, -1.0 if name in _STATISTICS else 0.0) for name in EVIDENCE_FIELDS
)


def lay_onto(subject: Subject, real: Working, transform: Transform) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Show a real image as it was laid onto a synthetic one, and where they agree.

    Args:
        subject: The synthetic image.
        real: The working image of the real one.
        transform: What lays it there, in pixels of the synthetic image as it was given.

    Returns:
        The real image, 0 where nothing of it lies, and the local correlation, NaN outside the overlap; both at the size
        of the comparison.
    """
    frame = _Frame.of(_working(subject), real)
    down, right = subject.height / frame.size[0], subject.width / frame.size[1]
    moved = replace(transform, shift_rows=transform.shift_rows / down, shift_columns=transform.shift_columns / right)
    moved = frame.of_fitted(moved)
    fitted = frame.fit_real(real)
    _, maps = evidence_maps(frame.fit(_working(subject)), fitted, moved)
    return warp(fitted, moved), maps.local_correlation


@dataclass(frozen=True, slots=True)
class _Frame:
    """The frame that a synthetic and a real image are compared in."""

    size: tuple[int, int]
    is_turned: bool  # the real one, by a quarter

    @classmethod
    def of(cls, synthetic: Working, real: Working) -> _Frame:
        is_turned = are_across(synthetic.shape, real.shape)
        rows, columns = real.shape[::-1] if is_turned else real.shape
        return cls((min(synthetic.shape[0], rows), min(synthetic.shape[1], columns)), is_turned)

    def fit(self, image: Working) -> NDArray[np.float32]:
        grey = float_grey(image)
        return grey if image.shape == self.size else resize_area(grey, *self.size)

    def fit_real(self, image: Working) -> NDArray[np.float32]:
        return self.fit(np.rot90(image).copy() if self.is_turned else image)

    def of_real(self, transform: Transform) -> Transform:
        """Make the transform of the fitted image one of the real image."""
        return turned_first(transform, 1) if self.is_turned else transform

    def of_fitted(self, transform: Transform) -> Transform:
        """Undo `of_real`."""
        return turned_first(transform, -1) if self.is_turned else transform


def _values(evidence: Floats, rows: Ints) -> Floats:
    return np.where(rows >= 0, evidence[..., S1], np.float32(-np.inf))
