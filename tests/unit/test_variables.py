"""What others would write into the environment in the middle of the work is there before it; what is the user's stays."""

from __future__ import annotations

import os

import pytest
from ray._private import ray_constants
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from masklake import leaving, variables

OTHERS = {"RAY_CLIENT_MODE", "RAY_USAGE_STATS_ENABLED", "PYTHONBREAKPOINT", "TORCHINDUCTOR_CACHE_DIR"}
"""What Ray and torch write, and leave."""


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment with nothing of Ray's."""
    for name in [name for name in os.environ if name.startswith("RAY_") or name in OTHERS | {"OPENBLAS_MAIN_FREE"}]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", os.environ.copy())  # a plain dictionary: what is added here goes with the test
    monkeypatch.setattr(variables, "_taken", list[str]())


def added(address: str | None, lean_data: bool = False) -> set[str]:
    before = set(os.environ)
    variables.prepare(address, lean_data)
    return set(os.environ) - before


def test_a_ray_of_our_own_has_a_token_and_settings_and_a_cluster_has_its_own() -> None:
    joining = added("10.0.0.1:6379")
    assert joining >= OTHERS
    own = added(None, lean_data=True)
    assert own >= {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN", ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, "RAY_prestart_worker_first_driver"}
    assert added(None, lean_data=True) == set()


def test_what_is_for_a_ray_of_our_own_is_taken_back_where_the_process_lives_on(monkeypatch: pytest.MonkeyPatch) -> None:
    added("auto")
    before = dict(os.environ)
    with variables.prepared(None):
        assert os.environ["RAY_AUTH_MODE"] == "token"
    assert dict(os.environ) == before
    monkeypatch.setattr(leaving._Memory, "ends", True)
    with variables.prepared(None):
        token = os.environ["RAY_AUTH_TOKEN"]
    assert os.environ["RAY_AUTH_TOKEN"] == token  # nothing is written beside threads that may still be there


def test_what_the_user_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "RAY_AUTH_MODE", "disabled")
    monkeypatch.setitem(os.environ, "RAY_BACKEND_LOG_LEVEL", "debug")
    with variables.prepared(None):
        assert "RAY_AUTH_TOKEN" not in os.environ
        assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_BACKEND_LOG_LEVEL"]) == ("disabled", "debug")
    assert (os.environ["RAY_AUTH_MODE"], os.environ["RAY_BACKEND_LOG_LEVEL"]) == ("disabled", "debug")


def test_torch_keeps_its_folder() -> None:
    added(None)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == default_cache_dir()
