"""The words of the page, explained; what decides differs with and without verification."""

from __future__ import annotations

from deepssim.report import text
from deepssim.report.data import Summary
from deepssim.report.view import condition, is_one_threshold

_COMMON = (
    ("Reproduced", "A real image, or a patient, with at least one pair over the threshold."),
    (
        "Holdout, control",
        "Comparable real images that the generator never saw. Likeness to them shows what chance gives where "
        "copying is impossible.",
    ),
    (
        "Interval",
        "The range of rates that agree with what was counted. The unit is the patient where patients are known, since "
        "images of one person are alike.",
    ),
)


def glossary(summary: Summary) -> tuple[tuple[str, str], ...]:
    """Return the words of the page with what they mean in this audit."""
    near, exact = condition(summary, "near"), condition(summary, "exact")
    if not summary.is_verified:
        score = (
            "Score",
            "How alike two images are to the metric; a higher score is closer. A score is no probability.",
        )
        if is_one_threshold(summary):
            return (
                score,
                (
                    "Exact duplicate",
                    f"A score {exact}. The metric has one threshold and does not tell exact copies from near ones: "
                    "both are called exact, and none near.",
                ),
                ("Flagged", "A synthetic image whose nearest real image is a duplicate by its score."),
                *_COMMON,
            )
        return (
            score,
            (
                "Near duplicate",
                f"Recognisably the same anatomy with local deviations: a score {near}, and not yet exact.",
            ),
            ("Exact duplicate", f"Every structure matches; only blur, noise or brightness differ: a score {exact}."),
            ("Flagged", "A synthetic image whose nearest real image is a near or exact duplicate by its score."),
            *_COMMON,
        )
    return (*_verification(summary.candidates, near, exact), *_COMMON)


def _verification(candidates: int | None, near: str, exact: str) -> tuple[tuple[str, str], ...]:
    of = "the nearest real images" if candidates is None else f"the {text.plural(candidates, 'nearest real image')}"
    return (
        (
            "Screening score",
            "How alike two images are to the metric; a higher score is closer. It chooses the candidates and decides "
            "nothing else.",
        ),
        (
            "Candidates",
            f"Of each synthetic image {of} by the screening score, with a cap on those of one patient. Only these "
            "were looked at.",
        ),
        (
            "Verification",
            "Each candidate is laid onto the synthetic image, and the two are compared pixel by pixel. That decides, "
            "whatever the screening score.",
        ),
        (
            "Transform",
            "What was done to the real image to lay it onto the synthetic one: mirrored, turned, scaled, moved. A "
            "copy that was turned is a copy.",
        ),
        ("Overlap", "The part of the image that both show after that. Nothing is said of the rest."),
        (
            "S1",
            "How well the two agree as a whole: the correlation of their structures, brightness and contrast set "
            "aside; 1 at best. It tells copies from other images and is no probability.",
        ),
        (
            "S2",
            "How well they agree where they agree worst: the mean of the lowest 1\u202f% of the local correlation; "
            "1 at best. It tells exact copies from near ones.",
        ),
        ("Near duplicate", f"Recognisably the same anatomy with local deviations: {near}, and not yet exact."),
        ("Exact duplicate", f"Every structure matches; only blur, noise or brightness differ: {exact}."),
        (
            "Flagged",
            "A synthetic image whose best candidate, the one with the highest S1, is a near or exact duplicate.",
        ),
    )
