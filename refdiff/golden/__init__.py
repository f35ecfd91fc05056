"""Golden outputs: record them, compare another program with them, name the bug.

trace = refdiff.golden.record(refdiff.load(model), "a red circle", steps=2)
report = refdiff.golden.compare(refdiff.golden.read_trace("theirs"), trace)
"""

from refdiff.golden.compare import compare
from refdiff.golden.format import Trace, read_trace, verify, write_trace

__all__ = ["Trace", "compare", "diagnose", "read_trace", "record", "verify", "write_trace"]


def __getattr__(name: str) -> object:
    """What needs a model is imported when it is asked for; comparing needs NumPy alone."""
    if name == "record":
        from refdiff.golden.recording import record

        return record
    if name == "diagnose":
        from refdiff.golden.diagnosis import diagnose

        return diagnose
    raise AttributeError(f"refdiff.golden has no {name}")
