"""The cases of every group."""

from tests.samplers import cases_first

CASES = [*cases_first.CASES]
