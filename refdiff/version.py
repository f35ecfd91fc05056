"""The version of this package; recipes in image files carry it."""

__version__ = "0.1.0"
