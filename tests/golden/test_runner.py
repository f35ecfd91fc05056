"""The runner protocol, with a toy port as another process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from refdiff.cli import refdiff
from refdiff.errors import BadRequest
from refdiff.golden.runner import run_cases
from refdiff.golden.suite import suite

LINEAR = ["L0/linear/bias", "L0/linear/square"]
REFUSED = next(name for name, case in suite().items() if case.refused)
SCHEDULE = next(name for name, case in suite().items() if case.kind != "op" and not case.refused)


def outcomes(how: str, names: list[str], *, timeout: float = 60.0) -> list[str]:
    command = [sys.executable, str(Path(__file__).parent / "toy_runner.py"), how]
    found = list(run_cases(command, [suite()[name] for name in names], timeout=timeout))
    assert [result.id for result in found] == names
    return [result.outcome for result in found]


@pytest.mark.parametrize(
    ("how", "wanted"),
    [
        ("right", ["pass", "pass", "unsupported", "fail"]),  # what must be refused and is only unsupported is no pass
        ("ops", ["pass", "pass", "unsupported", "fail"]),
        ("no bias", ["fail", "fail", "unsupported", "fail"]),
        ("nothing", ["fail", "fail", "unsupported", "fail"]),
        ("raise", ["error"] * 4),
        ("refuse", ["fail", "fail", "fail", "pass"]),
        ("die", ["pass", "error", "unsupported", "fail"]),
    ],
)
def test_outcomes(how, wanted):
    assert outcomes(how, [*LINEAR, SCHEDULE, REFUSED]) == wanted


def test_a_port_that_hangs_is_ended_and_started_again():
    assert outcomes("hang", [LINEAR[1], LINEAR[0]], timeout=20.0) == ["timeout", "pass"]


@pytest.mark.parametrize(
    "program",
    ["print('hello')", "import sys; sys.exit(2)", "print('[]')", """print('{"protocol": "2.0"}', flush=True); print('{}')"""],
)
def test_what_is_no_runner_is_refused_in_one_line(program):
    with pytest.raises(BadRequest) as error:
        list(run_cases([sys.executable, "-c", program], [], timeout=30.0))
    assert "\n" not in str(error.value)


def test_a_command_that_is_not_there_is_refused():
    with pytest.raises(BadRequest, match="cannot be started"):
        list(run_cases(["./no-such-program"], [], timeout=5.0))


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (f"{sys.executable} {{toy}} right", 1, "2 pass, 17 unsupported of 19"),
        (f"{sys.executable} {{toy}} refuse", 1, "19 fail of 19"),
        ("./no-such-program", 2, "./no-such-program: cannot be started"),
        ("", 2, "the command is empty"),
        ("an 'open quote", 2, "No closing quotation"),
    ],
)
def test_the_command_line_drives_a_port(command, code, told):
    given = command.format(toy=Path(__file__).parent / "toy_runner.py")
    result = CliRunner().invoke(refdiff, ["conformance", "--runner", given, "--level", "L0"], standalone_mode=False)
    output = result.output if result.exception is None else str(result.exception)
    assert told in output
    assert (2 if result.exception else result.return_value) == code
