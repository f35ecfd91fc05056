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


def pytest_addoption(parser):
    """The mode in which every op of the suite runs that does not choose one itself."""
    parser.addoption("--kernels", choices=["spec", "fast"], help="run the suite in this mode (what a test chooses, it keeps)")


def pytest_configure(config):
    """Register the kernels and choose the mode, where one is asked for."""
    chosen = config.getoption("--kernels")
    if chosen is not None:
        import refdiff.kernels.cpu  # noqa: F401 (the mode "fast")
        from refdiff.core import primitive

        primitive.set_mode(chosen)
