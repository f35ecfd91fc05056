"""Where the embedded model and the CLIP vocabulary lie: inside the installed package, or at the top of a checkout."""

from pathlib import Path

from refdiff.errors import RefdiffError


def weights_dir() -> Path:
    """The folder `weights/`.

    Raises: RefdiffError where the installation has none.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "weights", package.parent / "weights"):
        if folder.is_dir():
            return folder
    raise RefdiffError(f"the weights folder is missing from {package}: install refdiff again")
