"""A port that knows linear layers alone, and does with other cases what its second argument says."""

from __future__ import annotations

import os
import sys
import time

from refdiff.errors import BadRequest
from refdiff.golden.runner import Unsupported, serve


def run(case, x):
    print("a word on standard output that is no answer")
    how = sys.argv[1]
    if how == "hang" and case["id"].endswith("square"):
        time.sleep(600)
    if how == "die" and case["id"].endswith("square"):
        os._exit(3)
    if how == "raise":
        raise ZeroDivisionError("no reason")
    if how == "refuse":
        raise BadRequest("it is refused")
    if case["kind"] != "op" or case["constants"]["op"] != "linear":
        raise Unsupported("linear layers alone")
    if how == "nothing":
        return {}
    y = x["x"] @ x["weight"].T
    return {"out": y if how == "no bias" or "bias" not in x else y + x["bias"]}


serve(run, about={"name": "toy", "version": "0"}, can={"kinds": ["op"]} if sys.argv[1] == "ops" else {})
