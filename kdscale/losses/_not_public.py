"""What result tables name and nobody can implement: the specification is not public."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class NotPublic:
    """One method that is named in result tables but cannot be rebuilt from what is public.

    Attributes:
        name: Its name in those tables.
        title: Title, authors and venue, as far as they are known.
        known: What is known of it.
        reason: Why it is not here, and what comes nearest.
    """

    name: str
    title: str
    known: str
    reason: str


NOT_PUBLIC = (
    NotPublic(
        "TD",
        "Wu et al., Pattern Recognition 2025",
        "Results for three Cityscapes students stand in the segmentation table",
        "The paper behind the name could not be identified; there is no formula and no code.",
    ),
    NotPublic(
        "FAKD",
        "WACV 2024, segmentation",
        "The student's features are augmented in semantic directions; the loss is an upper bound "
        "of the expectation over them",
        "The repository jianlong-yuan/FAKD holds a README alone; bound and weights are not public.",
    ),
    NotPublic(
        "DIST+",
        "Knowledge Distillation From a Stronger Adaptive Teacher, TPAMI 47(7) 2025, "
        "doi 10.1109/TPAMI.2025.3554235",
        "DIST plus correlations over channels and over positions of a feature map, and a teacher "
        "that is adapted (abstract)",
        "The paper's formulas could not be read. The one open form, torchdistill's DISTPlusLoss, "
        "adds the channel correlation with the wrong sign and correlates over the batch where "
        "positions are meant; nothing confirms it. Method dist is DIST as published before.",
    ),
    NotPublic(
        "LAD/CAD",
        "Rethinking Knowledge Distillation with Raw Features, Liu et al., WACV 2024, segmentation",
        "The distance of raw features splits into magnitude and angle, the angle is what helps, "
        "and two simple losses use it (abstract)",
        "The formulas are not public.",
    ),
    NotPublic(
        "IPWD",
        "NeurIPS 2022, arXiv 2210.12787",
        "Two heads on the student, one trained with cross-entropy and one with KD; KD weighs an "
        "image by 1 + CE(first head) / CE(second head), of standardised logits",
        "No code was found; the normalisation over the batch and the coefficients are unverified.",
    ),
    NotPublic(
        "IDD",
        "IJCAI 2022, segmentation",
        "Squared differences between student's and teacher's distances of class centroids, a "
        "module that predicts positions, pixel KD and an adversarial loss",
        "The weights and the position module's details were not found.",
    ),
    NotPublic(
        "RLD",
        "README of a repository titled RLD, segmentation; not Refined Logit Distillation",
        "Cityscapes results for three students beside nine baselines, whose names its footnotes "
        "get wrong in several places",
        "No formula and no code were found. Method rld is Refined Logit Distillation; two guesses "
        "at this one are methods with names that end in _candidate.",
    ),
)
"""The methods of result tables whose specification is not public."""
