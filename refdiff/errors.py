"""What refdiff raises when it cannot do what was asked."""


class RefdiffError(Exception):
    """Every error that refdiff raises on purpose; its text is one line that says what is wrong and how to mend it."""


class BadRequest(RefdiffError):
    """The request cannot be met as it stands (exit code 2 on the command line)."""
