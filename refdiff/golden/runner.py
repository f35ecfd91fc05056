"""A port as a process that is asked for one case at a time: JSON lines on its standard input and output.

The protocol is told in docs/golden/protocol.md. `run_cases` drives a port in any language; `serve` is the other side, for ports
in Python.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from refdiff.checkpoints.tensor_file import read_safetensors, write_safetensors
from refdiff.errors import BadRequest, RefdiffError
from refdiff.golden.compare import MISSING, UNSUPPORTED
from refdiff.golden.format import read_trace
from refdiff.golden.suite import REFUSED, Expected, Result, judged

PROTOCOL = "1.0"
ERROR, TIMEOUT = "error", "timeout"
Tensors = Mapping[str, np.ndarray]


class Silent(RefdiffError):
    """No answer came in time."""


class Gone(RefdiffError):
    """The process has ended, or does not keep to the protocol."""


class Unsupported(RefdiffError):
    """What a port cannot do; raised inside `serve`."""


class Runner:
    """The process of a port, started, and stopped at the end of a with block."""

    def __init__(self, command: Sequence[str], *, timeout: float):
        """Raises: BadRequest where the command cannot be started or is of another protocol"""
        self.timeout = timeout
        self.lines: queue.Queue[str | None] = queue.Queue()
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        except OSError as error:
            raise BadRequest(f"{command[0]}: cannot be started: {error.strerror}") from error
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.about = self.ask({"op": "start", "protocol": PROTOCOL})
            self.can = self.ask({"op": "capabilities"})
        except RefdiffError as error:
            self.kill()
            raise BadRequest(f"{command[0]}: {error}") from error
        if str(self.about.get("protocol")).partition(".")[0] != PROTOCOL.partition(".")[0]:
            self.kill()
            raise BadRequest(f"{command[0]}: speaks protocol {self.about.get('protocol')}, this program {PROTOCOL}")

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """One line there, one line back.  Raises: Silent, Gone"""
        stdin = self.process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(message) + "\n")
            line = self.lines.get(timeout=self.timeout)
        except queue.Empty as error:
            raise Silent(f"no answer within {self.timeout:g} s") from error
        except OSError:
            line = None
        if line is None:
            raise Gone(f"the process ended with {self.process.wait(timeout=self.timeout)}")
        try:
            answer = json.loads(line)
        except ValueError as error:
            raise Gone(f"its answer is not JSON: {line[:80]!r}") from error
        if not isinstance(answer, dict):
            raise Gone(f"its answer is no object: {line[:80]!r}")
        return answer

    def stop(self) -> None:
        """Ask it to end, and see to it."""
        try:
            if self.process.stdin is not None:
                self.process.stdin.write('{"op": "stop"}\n')
                self.process.stdin.close()
            self.process.wait(timeout=self.timeout)
        except (OSError, subprocess.TimeoutExpired):
            self.kill()

    def kill(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)


def run_cases(command: Sequence[str], cases: Iterable[Expected], *, timeout: float) -> Iterator[Result]:
    """Ask a port for every case and judge what it gives; one that hangs or dies is started again for the next case.

    Raises: BadRequest where it cannot be started
    """
    runner = Runner(command, timeout=timeout)
    try:
        for case in cases:
            if runner.process.poll() is not None:
                runner = Runner(command, timeout=timeout)
            yield _asked(runner, case)
    finally:
        runner.stop()


def _asked(runner: Runner, case: Expected) -> Result:
    kinds = runner.can.get("kinds")
    if kinds is not None and case.kind not in kinds:
        return judged(case, UNSUPPORTED)
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.safetensors", Path(folder) / "outputs.safetensors"
        if case.inputs:
            write_safetensors(inputs, case.inputs, dtype=None)
        told = {"id": case.id, "kind": case.kind, "constants": case.constants, "outputs": list(case.outputs.tensors)}
        paths = {"inputs": str(inputs) if case.inputs else None, "outputs": str(outputs)}
        try:
            answer = runner.ask({"op": "run", "case": told, **paths})
            return _judged(case, answer, outputs)
        except Silent as error:
            runner.kill()
            return Result(case.id, TIMEOUT, note=str(error))
        except Gone as error:
            runner.kill()
            return Result(case.id, ERROR, note=str(error))


def _judged(case: Expected, answer: Mapping[str, Any], outputs: Path) -> Result:
    outcome, why = answer.get("outcome"), str(answer.get("why", ""))
    if outcome in (UNSUPPORTED, REFUSED):
        return judged(case, outcome)
    if outcome != "done":
        return Result(case.id, ERROR, note=why or f"it answered {outcome!r}")
    if not outputs.exists():
        return judged(case, MISSING)
    try:
        return judged(case, dict(read_trace(outputs).tensors))
    except BadRequest as error:
        return Result(case.id, ERROR, note=str(error))


def serve(run: Callable[[Mapping[str, Any], Tensors], Tensors], *, about: Mapping[str, Any], can: Mapping[str, Any]) -> None:
    """Answer on standard output until told to stop: `run(case, inputs)` gives the outputs by name.

    It raises Unsupported for what it cannot do and BadRequest for what must be refused; anything else is an error of that case.
    What it prints goes to standard error.
    """
    answers = sys.stdout
    with redirect_stdout(sys.stderr):
        for line in sys.stdin:
            message = json.loads(line)
            if message["op"] == "stop":
                return
            known = {"start": {**about, "protocol": PROTOCOL}, "capabilities": can}
            _say(answers, known[message["op"]] if message["op"] in known else _answer(run, message))


def _answer(run: Callable[[Mapping[str, Any], Tensors], Tensors], message: Mapping[str, Any]) -> dict[str, Any]:
    try:
        inputs = {} if message["inputs"] is None else read_safetensors(Path(message["inputs"]))
        made = run(message["case"], inputs)
        write_safetensors(Path(message["outputs"]), {name: np.ascontiguousarray(x) for name, x in made.items()}, dtype=None)
    except Unsupported as error:
        return {"outcome": UNSUPPORTED, "why": str(error)}
    except BadRequest as error:
        return {"outcome": REFUSED, "why": str(error)}
    except Exception as error:  # whatever goes wrong in a port is told, and the next case is asked for
        return {"outcome": ERROR, "why": f"{type(error).__name__}: {error}"[:500]}
    return {"outcome": "done"}


def _say(stream: TextIO, answer: Mapping[str, Any]) -> None:
    stream.write(json.dumps(answer) + "\n")
    stream.flush()
