"""The table that most tests of exports read; none of them changes it."""

from __future__ import annotations

import pytest

from tests import exports


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    return exports.build(str(tmp_path_factory.mktemp("lake") / "masks"))
