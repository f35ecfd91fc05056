"""Settings for the whole suite."""

import sys

from hypothesis import HealthCheck, settings

# The same examples on every run: a red build is a change of the code, never of the dice.
settings.register_profile(
    "refdiff",
    deadline=None,
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# python -m pytest --hypothesis-profile=explore: fresh examples, many of them.
settings.register_profile("explore", deadline=None, max_examples=500, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("refdiff")

# The simulated device reads its rules from CuPy, which has no build for macOS.
collect_ignore = ["device"] if sys.platform == "darwin" else []
