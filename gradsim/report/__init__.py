"""The report of a study: one HTML file that needs no network."""

from gradsim.report.data import ReportData, SettingReport
from gradsim.report.render import render_report

__all__ = ["ReportData", "SettingReport", "render_report"]
