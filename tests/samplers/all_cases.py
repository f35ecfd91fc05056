"""The cases of every group."""

from tests.samplers import cases_dpm, cases_first, cases_k, cases_p, cases_s

CASES = [*cases_first.CASES, *cases_k.CASES, *cases_p.CASES, *cases_dpm.CASES, *cases_s.CASES]
