"""A cluster of machines, as Ray plays them on this one, shared by the tests of a file."""

from collections.abc import Iterator

import pytest
from ray_machines import Machines


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """One machine that holds one worker; tests add others and remove them."""
    pytest.importorskip("ray")
    found = Machines(tmp_path_factory.mktemp("cluster"))
    yield found
    found.end()
