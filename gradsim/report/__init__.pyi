from .data import ReportData as ReportData
from .data import SettingReport as SettingReport
from .render import render_report as render_report
