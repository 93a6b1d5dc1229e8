from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kdscale.errors import StudyFileError
from kdscale.search import load_study

from .studies import load_data, make_study, study_data


@pytest.mark.parametrize(
    ("seeds", "wanted"),
    [
        (3, (0, 1, 2)),
        ([4, 2], (4, 2)),
        ({"n": 2}, (0, 1)),
        ({"list": [7, 5], "policy": "all", "paired": True}, (7, 5)),
    ],
)
def test_seeds_are_a_count_a_list_or_a_mapping(seeds: Any, wanted: tuple[int, ...]) -> None:
    study = make_study(seeds=seeds, budget={"trials": len(wanted) * 2, "epochs": 8})
    assert (study.seed_list, study.tolerance) == (wanted, None)
    assert study.configurations == 2


def test_a_race_has_a_tolerance_in_the_unit_of_the_metric(tmp_path: Path) -> None:
    race: dict[str, Any] = {"n": 2, "policy": "race"}
    assert make_study(seeds=race).tolerance == 0.1
    loss = {"name": "val_loss", "goal": "minimize"}
    assert make_study(seeds=race, metric=loss).tolerance == 0.0
    study = load_data(study_data(seeds=race | {"tolerance": 0.3}), tmp_path)
    assert study.tolerance == 0.3
    path = tmp_path / "again.yaml"
    path.write_text(study.to_yaml())
    assert load_study(path) == study


@pytest.mark.parametrize(
    ("seeds", "path", "rule", "hint"),
    [
        ({"n": 0}, "seeds.n", "must be >= 1", ""),
        ({}, "seeds.list", "must be given, or n, and not both", "write n: 5"),
        ({"n": 2, "list": [1, 2]}, "seeds.list", "and not both", "remove one of them"),
        ({"list": [1, 1]}, "seeds.list.1", "must be listed only once", "remove it"),
        ({"n": 2, "polcy": "race"}, "seeds.polcy", "must be a known key", 'mean "policy"?'),
        ({"n": 2, "policy": "rase"}, "seeds.policy", "must be all or race", 'mean "race"?'),
        ({"n": 2, "paired": False}, "seeds.paired", "must be true", "share batches"),
        ({"n": 1, "policy": "race"}, "seeds.policy", "must be all with one seed", "n: 2 or more"),
        ({"n": 2, "tolerance": 0.1}, "seeds.tolerance", "only with policy: race", "remove it"),
        ({"n": 2, "policy": "race", "tolerance": -1}, "seeds.tolerance", "must be >= 0", ""),
    ],
)
def test_what_is_wrong_is_said_once_and_in_its_place(
    seeds: Any, path: str, rule: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyFileError) as caught:
        load_data(study_data(seeds=seeds), tmp_path)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert rule in problem.rule
    assert hint in problem.hint
