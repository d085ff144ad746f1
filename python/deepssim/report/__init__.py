"""The report of an audit: one self-contained HTML file made from the files of the audit folder."""

from __future__ import annotations

from deepssim.report.fields import ReportError
from deepssim.report.render import write_report

__all__ = ["ReportError", "write_report"]
