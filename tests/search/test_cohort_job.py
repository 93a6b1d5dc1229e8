from __future__ import annotations

import pytest

from kdscale.errors import UserError
from kdscale.search._cluster import joined_cluster


def test_a_cluster_that_cannot_be_joined_is_the_users_to_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(**options: object) -> None:
        assert "address" not in options  # Ray itself reads RAY_ADDRESS
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379\nmore")

    monkeypatch.setattr("ray.init", refuse)
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    wanted = r"RAY_ADDRESS: .* at 10\.0\.0\.1:6379, but: Failed to connect .* \(RAY_AUTH_MODE=token"
    with pytest.raises(UserError, match=wanted), joined_cluster():
        pass
