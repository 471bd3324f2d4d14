"""The report: one HTML file that shows a study, and needs nothing else to be looked at."""

from nas.report.page import render, write_report

__all__ = ["render", "write_report"]
