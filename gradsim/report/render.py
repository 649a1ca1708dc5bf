"""Rendering of a study's results to the page."""

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gradsim.plots.labels import listed, percent, setting_label
from gradsim.report.answer import answer_of
from gradsim.report.browser import Browsed, Texts, browsed, described, layers_shown, packed_texts, texts_by_id
from gradsim.report.contents import missing_of, sections_of
from gradsim.report.data import ReportData, SettingReport
from gradsim.report.downloads import Downloads
from gradsim.report.faults import faults_are_known, faults_table
from gradsim.report.findings import BigNumber, alarm_of, big_numbers, chance_of
from gradsim.report.glossary import Glossary
from gradsim.report.headline import Lead, headline_of, leads_of
from gradsim.report.tables import Table, table_of

PAGE = Path(__file__).parent / "page"

STYLES = ("tokens", "layout", "terms", "masthead", "figures", "tables", "browser", "chart", "print")
SCRIPTS = ("elements", "blocks", "settings", "navigation", "tables", "pairs", "chart", "lists", "browser")


@dataclass(frozen=True)
class Scores:
    """Key numbers of a setting at the top of the page."""

    name: str
    label: str
    queries: str
    big_numbers: list[BigNumber]
    leads: list[Lead]


def render_report(data: ReportData) -> str:
    """Return a study's findings, figures, tables, texts, method and provenance as one HTML page.

    The page loads no external resources and escapes all text from the data.

    Raises:
        ValueError: There is no setting.
    """
    if not data.settings:
        raise ValueError("a report needs at least one setting")
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = percent
    downloads = Downloads()
    answer = answer_of(data.settings)
    sections = sections_of(data, answer, downloads)
    exclusions = _by_sample("exclusions", "Samples left out", data.exclusions, downloads)
    originals = texts_by_id(data.originals)
    layers = layers_shown(data.settings)
    every = (browsed(setting, layers, texts_by_id(setting.queries), originals) for setting in data.settings)
    pairs = [each for each in every if each is not None]
    script = _joined("js", SCRIPTS)
    return environment.get_template("page.html.j2").render(
        study=data.study,
        description=data.description,
        alarm=alarm_of(data),
        headline=headline_of(data.settings),
        settings=[_scores(setting) for setting in data.settings],
        several=len(data.settings) > 1,
        chances=listed(list(dict.fromkeys(percent(chance_of(setting)) for setting in data.settings))),
        answer=answer,
        sections=sections,
        provenance=data.provenance,
        definition=data.definition,
        exclusions=exclusions,
        exclusions_known=data.exclusions is not None,
        truncations=_by_sample("truncations", "Samples truncated", data.truncations, downloads),
        faults=faults_table(data.settings, downloads),
        faults_known=faults_are_known(data.settings),
        missing={
            setting_label(setting.setting): what for setting in data.settings if (what := missing_of(setting, data))
        },
        downloads=downloads,
        glossary=Glossary(),
        browsed=pairs,
        layers=described(layers),
        original_texts=_shown(originals, pairs) if originals else None,
        css=Markup(_joined("css", STYLES)),
        script=Markup(script),
        script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _joined(folder: str, names: tuple[str, ...]) -> str:
    return "\n".join((PAGE / folder / f"{name}.{folder}").read_text(encoding="utf-8") for name in names)


def _scores(setting: SettingReport) -> Scores:
    number = len(setting.tables["decisions"])
    queries = "1 query" if number == 1 else f"{number:,} queries"
    return Scores(setting.setting, setting_label(setting.setting), queries, big_numbers(setting), leads_of(setting))


def _shown(originals: Texts, pairs: list[Browsed]) -> str:
    """Return the packed texts of the originals that the pair browser shows."""
    shown = set[str]().union(*(each.originals for each in pairs))
    return packed_texts({name: messages for name, messages in originals.items() if name in shown})


def _by_sample(name: str, caption: str, samples: pl.DataFrame | None, downloads: Downloads) -> Table | None:
    if samples is None or samples.is_empty():
        return None
    return table_of(name, caption, samples, {}, downloads.add(name, name, samples))
