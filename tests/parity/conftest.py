"""What the parity tests share."""

from __future__ import annotations

import pytest

import refdiff.kernels.cpu  # noqa: F401 (the mode "fast")
from tests.parity.upstream import Measure


@pytest.fixture
def measure(record_property) -> Measure:
    """Compare with a bound; the figure goes into the table of measurements."""
    return Measure(record_property)
