"""A comparison as a file: JSON for programs, JUnit XML for CI systems, a page for people. Nothing is fetched, nothing runs."""

from refdiff.report.page import as_html
from refdiff.report.plain import as_json, as_junit

__all__ = ["as_html", "as_json", "as_junit"]
