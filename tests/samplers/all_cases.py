"""The cases of every group."""

from tests.samplers import cases_first, cases_p

CASES = [*cases_first.CASES, *cases_p.CASES]
