"""The small project whose stages are run, and a machine with a GPU that is pretended."""

import pytest

from tests.device.pretended import pretending
from tests.unit.training.conftest import project  # noqa: F401 - a fixture


@pytest.fixture
def cuda():
    with pretending() as where:
        yield where
