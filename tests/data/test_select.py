from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdscale.data import ArraySplit
from kdscale.data._select import balanced_subset, carve, with_label_noise
from kdscale.errors import UserError

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80)


def split_of(labels: list[int]) -> ArraySplit:
    return ArraySplit.of(np.zeros((len(labels), 3, 1, 1), dtype=np.uint8), labels)


@given(labels=LABELS.filter(lambda labels: len(set(labels)) < len(labels)), data=st.data())
@settings(deadline=None)
def test_carve_parts_the_images_and_takes_its_share_of_each_class(
    labels: list[int], data: st.DataObject
) -> None:
    fraction = data.draw(st.floats(0.01, 0.99))
    train, validation = carve(split_of(labels), fraction)
    assert sorted([*train.rows, *validation.rows]) == list(range(len(labels)))
    for label in set(labels):
        count = labels.count(label)
        held = int((validation.labels == label).sum())
        assert held == min(max(round(count * fraction), 1), count - 1)
    for part in (train, validation):
        assert part.labels.tolist() == [labels[row] for row in part.rows]


def test_carve_needs_two_images_of_some_class() -> None:
    with pytest.raises(UserError, match="at least 2 training images, but got 2 images of 2"):
        carve(split_of([0, 1]), 0.5)


@given(labels=LABELS, data=st.data())
@settings(deadline=None)
def test_subsets_are_balanced_and_nested(labels: list[int], data: st.DataObject) -> None:
    split = split_of(labels)
    small = data.draw(st.integers(0, len(labels)))
    large = data.draw(st.integers(small, len(labels)))
    subset = balanced_subset(split, small)
    assert len(subset) == small
    assert set(subset.rows) <= set(balanced_subset(split, large).rows)
    chosen = torch.bincount(subset.labels, minlength=6)
    most = int(chosen.max())
    for label in range(6):
        assert chosen[label] >= min(most - 1, labels.count(label))


def test_a_subset_larger_than_the_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"at most the number of training images \(3\), but got 4"):
        balanced_subset(split_of([0, 1, 2]), 4)


def test_the_choices_are_the_same_on_every_machine_and_numpy() -> None:
    # Written down once: a change would change the numbers of every study.
    split = split_of([row % 4 for row in range(40)])
    assert carve(split, 0.1)[1].rows.tolist() == CARVED
    assert balanced_subset(split, 6).rows.tolist() == CHOSEN


CARVED = [1, 8, 10, 19]
CHOSEN = [4, 6, 19, 21, 22, 31]


@given(labels=LABELS, data=st.data())
@settings(deadline=None)
def test_label_noise_hits_its_share_of_each_class(labels: list[int], data: st.DataObject) -> None:
    share = data.draw(st.floats(0.0, 0.99))
    noisy = with_label_noise(split_of(labels), share, 6)
    for label in set(labels):
        given = [row for row, own in enumerate(labels) if own == label]
        wrong = [row for row in given if int(noisy.labels[row]) != label]
        assert len(wrong) == round(len(given) * share)
    assert set(noisy.labels.tolist()) <= set(range(6))
    assert list(noisy.rows) == list(range(len(labels)))


@given(labels=LABELS)
@settings(deadline=None)
def test_more_label_noise_keeps_the_errors_of_less(labels: list[int]) -> None:
    right = torch.tensor(labels)
    less = with_label_noise(split_of(labels), 0.2, 6).labels
    more = with_label_noise(split_of(labels), 0.6, 6).labels
    hit = less != right
    assert torch.equal(less[hit], more[hit])


def test_label_noise_spreads_over_all_other_classes() -> None:
    noisy = with_label_noise(split_of([2] * 4000), 0.5, 5)
    counts = torch.bincount(noisy.labels, minlength=5)
    assert counts[2] == 2000
    assert all(430 <= int(counts[label]) <= 570 for label in (0, 1, 3, 4))


def test_label_noise_needs_a_second_class() -> None:
    with pytest.raises(UserError, match="a second class"):
        with_label_noise(split_of([0, 0]), 0.5, 1)
