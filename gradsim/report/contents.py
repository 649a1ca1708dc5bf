"""Sections of the page with findings, in order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from gradsim import plots
from gradsim.analysis.controls import ANSWER_LENGTH
from gradsim.analysis.questions import QUESTIONS, SIZES
from gradsim.environment import extensions
from gradsim.plots import registry as figures
from gradsim.plots.labels import listed
from gradsim.plots.registry import FigureOf
from gradsim.report.answer import Answer, alone_of, unanswered
from gradsim.report.data import ReportData, SettingReport
from gradsim.report.downloads import Downloads
from gradsim.report.drawing import Picture
from gradsim.report.findings import left_out_of, proof_of, summary_of, verdict_of
from gradsim.report.sections import NAMES, Drawer, Panel, Section

QUERY_TABLES = ("decisions", "divergence", "similarity_over_layers")


def sections_of(data: ReportData, answer: Answer | None, downloads: Downloads) -> list[Section]:
    """Return the non-empty sections of the page."""
    drawer = Drawer(data, downloads)
    sections = (
        _accuracy(data, drawer),
        _select_or_project(data, drawer, answer),
        _layers(data, drawer),
        _projections(data, drawer),
        _retrieval(data, drawer),
        _extensions(data, drawer),
        _transfer(data, drawer, downloads),
        _proof(data, drawer),
        _queries(data, drawer),
        _model(data, drawer, downloads),
    )
    return [section for section in sections if any(section.panels)]


def missing_of(setting: SettingReport, data: ReportData) -> str:
    """Return a list of the data of a setting that are unavailable, as text."""
    beside = {
        "inner products by layer": setting.layer_dots is not None,
        "layer sizes": _has_sizes(data),
        "query texts": setting.queries is not None,
        "original texts": data.originals is not None,
        "the answer length control": ANSWER_LENGTH in setting.tables["controls"]["control"],
    }
    absent = [name for table, name in NAMES.items() if table not in setting.tables]
    return listed(absent + [name for name, found in beside.items() if not found])


def _has_sizes(data: ReportData) -> bool:
    sizes = data.parameters_per_layer
    return sizes is not None and sizes["parameters"].null_count() == 0


def _panels(
    data: ReportData,
    drawer: Drawer,
    pictures: Sequence[FigureOf],
    captions: Mapping[str, str],
    said: Callable[[SettingReport], Sequence[str]] = lambda setting: (),
) -> list[Panel]:
    """Return a panel for each setting, with the figures and tables that it has.

    Args:
        data: Results of the study.
        drawer: Factory of figures and tables.
        pictures: Figures of each panel.
        captions: Captions of each panel's tables, by name of the table.
        said: Function that returns the sentences of a setting's panel.
    """
    return [
        Panel(
            setting.setting,
            said(setting),
            drawer.pictures(setting, pictures),
            [table for name, caption in captions.items() for table in drawer.table(setting, name, caption)],
        )
        for setting in data.settings
    ]


def _accuracy(data: ReportData, drawer: Drawer) -> Section:
    captions = {
        "accuracy": "Accuracy",
        "controls": "Null controls",
        "baseline_differences": "Differences from the baselines",
        "method_differences": "Differences between methods",
    }
    panels = [
        replace(panel, pictures=[_accuracy_picture(setting, drawer)])
        for panel, setting in zip(_panels(data, drawer, (), captions, summary_of), data.settings, strict=True)
    ]
    lead = "How often is the true source the most similar candidate, and how often without gradients?"
    return Section("accuracy", "Accuracy and null controls", "Accuracy", lead, panels)


def _accuracy_picture(setting: SettingReport, drawer: Drawer) -> Picture:
    behind = [drawer.download(setting, name) for name in ("accuracy", "controls")]
    note = (
        "Filled markers are methods; hollow markers are null controls, which use no gradients. Lines show 95\u00a0% "
        "confidence intervals; for shuffled sources, they contain 95\u00a0% of a thousand shuffles."
    )
    methods, nulls = ({setting.setting: setting.tables[name]} for name in ("accuracy", "controls"))
    return drawer.picture(plots.accuracy_of_methods(methods, nulls), "accuracy_of_methods", note, behind, folded=False)


def _select_or_project(data: ReportData, drawer: Drawer, answer: Answer | None) -> Section:
    def said(setting: SettingReport) -> list[str]:
        sentences = answer.sentences.get(setting.setting, []) if answer else []
        return [*sentences, *alone_of(setting, data.parameters_per_layer)] if answer else []

    captions = {
        "select_or_project": "Selected layers and projections",
        "selection_under_budget": "Greedy selections within a budget",
    }
    panels = _panels(data, drawer, figures.SELECTION, captions, said)
    verdict = Panel(sentences=[] if answer else [unanswered(data)])
    lead = (
        "A gradient can be compressed by keeping a few whole layers or by a random projection of all layers. Which is "
        "more accurate at the same size?"
    )
    return Section("select", "Select or project?", "Select or project", lead, [verdict, *panels] if any(panels) else [])


def _layers(data: ReportData, drawer: Drawer) -> Section:
    captions = {"layers": "", "layer_means": "Means of layers"}
    panels = _panels(data, drawer, figures.LAYERS, captions, left_out_of)
    lead = "How accurately does the gradient of each single layer identify the source?"
    return Section("layers", "Which layers?", "Layers", lead, panels)


def _projections(data: ReportData, drawer: Drawer) -> Section:
    panels = _panels(data, drawer, figures.PROJECTIONS, {"projection_audit": "Projections and theory"})
    lead = "A projected cosine is an estimate. Does its error match theory, and how close is it to the full gradient?"
    return Section("projections", "Projections and theory", "Projections", lead, panels)


def _retrieval(data: ReportData, drawer: Drawer) -> Section:
    captions = {
        "best_similarity": "Similarity of the best candidate and of the source",
        "retrieval": "Recall and reciprocal rank",
    }
    panels = _panels(data, drawer, figures.RETRIEVAL, captions)
    lead = "How high does the source rank among the candidates, and how clear are the decisions?"
    return Section("retrieval", "Retrieval", "Retrieval", lead, panels)


def _extensions(data: ReportData, drawer: Drawer) -> Section:
    captions = {name: QUESTIONS[name].description for name in extensions("analyses")}
    panels = _panels(data, drawer, figures.EXTENSIONS, captions)
    return Section("more", "Further analyses", "More", "Analyses that other packages add.", panels)


def _transfer(data: ReportData, drawer: Drawer, downloads: Downloads) -> Section:
    panels = []
    if data.selection_transfer is not None and not data.selection_transfer.is_empty():
        picture = drawer.picture(
            plots.transfer_of_selections(data.selection_transfer),
            "transfer_of_selections",
            "The closer the two lines, the better the selection transfers. " + figures.WHISKERS,
            [downloads.add("selection_transfer", "transfer of selections", data.selection_transfer)],
        )
        panels = [Panel(pictures=[picture])]
    lead = "Do layers selected on one setting work as well on another as its own selection?"
    return Section("transfer", "Transfer between settings", "Transfer", lead, panels)


def _proof(data: ReportData, drawer: Drawer) -> Section:
    panels = []
    for setting in data.settings:
        verdict = verdict_of(setting, data.precision)
        if verdict is None:
            continue
        picture = drawer.picture(
            plots.errors_of_audit(setting.tables["gradient_audit"], data.precision),
            "errors_of_audit",
            "Each marker is a recomputed value; values further to the left agree more closely.",
            [drawer.download(setting, "gradient_audit")],
        )
        panels.append(
            Panel(setting.setting, sentences=[proof_of(verdict)], pictures=[picture], alarm=not verdict.passed)
        )
    lead = "Do the stored inner products agree with plain automatic differentiation?"
    return Section("proof", "Gradient audit", "Audit", lead, panels)


def _queries(data: ReportData, drawer: Drawer) -> Section:
    panels = [
        Panel(
            setting.setting,
            downloads=[drawer.download(setting, name) for name in QUERY_TABLES if name in setting.tables],
        )
        for setting in data.settings
    ]
    lead = "Every query with its candidates: texts, similarities, and similarities by layer."
    return Section("queries", "Queries and their candidates", "Queries", lead, panels)


def _model(data: ReportData, drawer: Drawer, downloads: Downloads) -> Section:
    sizes = data.parameters_per_layer
    panels = []
    if sizes is not None and _has_sizes(data):
        picture = drawer.picture(
            plots.parameters_of_components(sizes),
            "parameters_of_components",
            "Total parameters of all layers of each component.",
            [downloads.add(SIZES, "layer parameters", sizes)],
        )
        panels = [Panel(pictures=[picture])]
    return Section("model", "The model", "Model", "How are the parameters distributed over the model?", panels)
