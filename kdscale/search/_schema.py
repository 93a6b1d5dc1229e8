"""The JSON schema of study files: ``python -m kdscale.search._schema > search_spaces/schema.json``.

Editors read it, through the ``$schema`` line that opens each study file, to complete and to check.
"""

from __future__ import annotations

import json
from typing import Any

from kdscale.search._study import Study


def study_schema() -> dict[str, Any]:
    """Returns the JSON schema of a study file, made from the models that validate it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "kdscale study",
        **Study.model_json_schema(),
    }


if __name__ == "__main__":
    print(json.dumps(study_schema(), indent=2, ensure_ascii=False))
