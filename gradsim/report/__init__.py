"""Report of a study: a single HTML file without external resources."""

from gradsim.report.data import ReportData, SettingReport
from gradsim.report.render import render_report

__all__ = ["ReportData", "SettingReport", "render_report"]
