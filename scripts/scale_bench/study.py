"""The study files of bench_scale."""

from __future__ import annotations

from pathlib import Path

from kdscale.search import Study, load_study

_NOOP = """name: noop
task:
  data: {{name: icons100}}
  teacher: {{model: resnet8, weights: package:icons100-resnet8}}
  student: {{model: resnet8}}
objective: {{methods: [{{method: ldrld}}]}}
parameters: {{alpha: {{min: 2, max: 14}}}}
search: {{method: random}}
seeds: 1
undistilled: false
budget: {{trials: {trials}, epochs: {epochs}}}
{rungs}
resources: {{cohort: {cohort}}}
tracking: {{mlflow: false}}
storage: {{folder: {folder}}}
"""


def noop_study(
    folder: Path, trials: int, cohort: int, *, epochs: int = 1, rungs: str = ""
) -> Study:
    """Returns a study that nobody trains."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "noop.yaml"
    text = _NOOP.format(trials=trials, cohort=cohort, folder=folder, epochs=epochs, rungs=rungs)
    path.write_text(text)
    return load_study(path)
