"""The command `plan`: a forecast of a study's cost. It stores no tables, and loads weights only to measure."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim import models
from gradsim.dataset.token_estimate import CHARACTERS_PER_TOKEN
from gradsim.forecast.costs import Forecaster, SettingForecast
from gradsim.forecast.inputs import CANDIDATES, LENGTHS
from gradsim.forecast.sources import Sources
from gradsim.gradients.planning.prediction import weight_bytes
from gradsim.partition_job.study_projections import projector_of
from gradsim.study import Study
from gradsim.study.settings import LocalParaphrase
from gradsim.tables.lineage import INDEX
from gradsim.tables.rates import MeasuredRates, write_rates
from gradsim_assets.assets.dataset import load_originals
from gradsim_assets.commands.places import place_of
from gradsim_assets.commands.session import Session
from gradsim_assets.commands.spending import missing_queries, spending
from gradsim_assets.terminal import (
    bytes_text,
    console,
    heading,
    operations_text,
    print_in_parts,
    print_note,
    seconds_text,
)

Cell = Callable[[SettingForecast], str]


def print_plan(session: Session, *, measure: bool = False) -> None:
    """Print the cost of each setting's missing partitions where jobs run; with `measure`, measure the speed first.

    Raises:
        GradsimError: An input cannot be loaded, or the study does not fit the machine.
    """
    place = place_of(session)
    loaded = cache(partial(load_originals, session.study))
    sources = Sources(session.store, lambda: loaded().frame)
    if measure:
        path = write_rates(session.store, place.measure(session, sources))
        console.print(f"measured; stored in [bold]{escape(str(path))}[/]", soft_wrap=True)
    known = place.known(session)
    forecaster = Forecaster(sources, place.machine(session, known))
    with console.status("planning"):
        forecasts = forecaster.settings(list(session.study.settings))
    data_format = (
        session.store.provenance(session.store.lineage.key("samples")).format
        if sources.fresh("samples")
        else loaded().format
    )
    _print_heading(session.study, sources, place.name, data_format)
    print_in_parts(partial(_table, weights=weight_bytes(sources.model)), forecasts)
    for note in (
        *_notes(sources, forecasts),
        *spending(session, missing_queries(session), sources.samples),
        _rates_note(session.study, known),
    ):
        print_note(note)


def _print_heading(study: Study, sources: Sources, place: str, data_format: str | None) -> None:
    sizes = {name: parameter.numel() for name, parameter in models.studied_layers(sources.model).items()}
    chosen = study.layers.of(list(sizes)) if study.layers else []
    compared = f"\n{len(chosen)} of {len(sizes)} layers compared, {sum(sizes[name] for name in chosen):,} parameters"
    console.print(
        f"[bold]{study.name}[/] on {escape(place)}\n"
        f"{study.model.precision}, {len(sizes)} layers, {sum(sizes.values()):,} parameters"
        + (compared if chosen else "")
        + (f"\n{study.size:,} samples, format {data_format}" if data_format else ""),
        soft_wrap=True,
    )


def _table(forecasts: Sequence[SettingForecast], weights: int) -> Table:
    """Return the forecast as a table with one column per setting and one row per quantity."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    for forecast in forecasts:
        table.add_column(heading(forecast.setting), justify="right", overflow="fold")
    for title, rows in _sections(weights):
        table.add_row(f"[bold]{title}[/]")
        for label, cell in rows:
            cells = [cell(forecast) for forecast in forecasts]
            if any(cells):
                table.add_row(f"  {label}", *cells)
        table.add_section()
    return table


def _sections(weights: int) -> Iterator[tuple[str, Sequence[tuple[str, Cell]]]]:
    """Yield the titles and rows of the table's sections; rows that are empty for every setting are omitted."""
    yield (
        "what is compared",
        (
            ("partitions to compute", lambda f: f"{len(f.missing):,} of {f.partitions:,}"),
            ("queries", lambda f: f"{len(f.inputs.queries):,}"),
            ("originals", lambda f: f"{len(f.inputs.originals):,}"),
            ("unique samples", lambda f: f"{f.together.plan.unique_samples:,}"),
            ("pairs", lambda f: f"{len(f.inputs.pairs):,}"),
            ("counts", lambda f: "estimated" if f.estimated else "exact"),
        ),
    )
    yield (
        "all in one job",
        (
            ("samples run (passes)", lambda f: f"{f.together.plan.passes:,}"),
            ("tokens run, with padding", lambda f: f"{f.together.plan.cost.tokens:,}"),
            ("operations", lambda f: operations_text(f.together.plan.cost.operations)),
            ("read to compare", lambda f: bytes_text(f.together.plan.cost.moved_bytes)),
            ("copied to the host and back", _copied),
            ("built, kept as factors", _forms),
            ("memory: model", lambda f: bytes_text(weights)),
            ("memory: captured gradients", lambda f: bytes_text(f.together.plan.peak_bytes)),
            ("memory: a pass", lambda f: bytes_text(f.together.plan.working_bytes)),
            ("memory in all", lambda f: bytes_text(f.together.memory_bytes)),
            ("blocks checkpointed", lambda f: "yes" if f.together.plan.checkpoint else "no"),
            ("time", lambda f: _time(f.together.seconds)),
        ),
    )
    yield (
        "split: a job a partition",
        (
            ("samples run (passes)", lambda f: f"{f.split_passes:,}"),
            ("operations", lambda f: operations_text(f.split_operations)),
            ("time, one after the other", lambda f: _time(f.split_seconds)),
        ),
    )
    yield (
        "results",
        (
            ("rows of the partitions", lambda f: f"{f.rows.count:,}"),
            ("about, with combined tables", lambda f: bytes_text(f.rows.nbytes)),
        ),
    )


def _copied(forecast: SettingForecast) -> str:
    copied = forecast.together.plan.cost.spilled_bytes
    return bytes_text(copied) if copied else ""


def _forms(forecast: SettingForecast) -> str:
    built = forecast.together.plan.built
    return f"{built.sum():,}, {(~built).sum():,}"


def _time(seconds: float | None) -> str:
    return "[dim]--measure[/]" if seconds is None else seconds_text(seconds)


def _notes(sources: Sources, forecasts: Sequence[SettingForecast]) -> Iterator[str]:
    """Yield notes on what the table's numbers leave out or assume."""
    study = sources.store.study
    if computed := [forecast.setting for forecast in forecasts[: len(study.settings)] if not forecast.missing]:
        yield f"{', '.join(computed)}: already computed; the numbers are for computing everything again (--force)"
    estimated = frozenset().union(*(forecast.estimated for forecast in forecasts))
    if LENGTHS in estimated:
        originals = f"originals have one token per {CHARACTERS_PER_TOKEN} characters, " * sources.originals.estimated
        yield f"estimated lengths: {originals}queries are as long as their originals"
    if CANDIDATES in estimated:
        yield "estimated candidates: the true source and random others"
    if sources.model_configuration is None:
        yield _training_note(sources)
    for name, method in study.settings.items():
        if method.runs_model and not all(sources.fresh("queries", name, each.key) for each in study.partitions):
            writer = method.model if isinstance(method, LocalParaphrase) else "the model"
            yield f"not counted: {writer} writes the queries of {name} first"
    yield from _index_notes(sources)


def _training_note(sources: Sources) -> str:
    """Return a note on the cost of training the model: 6 operations per parameter and token."""
    training = sources.store.study.model.training
    assert training is not None
    tokens = training.steps * training.tokens_per_step
    operations = 6 * sources.model.num_parameters() * tokens
    return (
        f"not counted: the model is trained first, in {training.steps:,} steps of up to "
        f"{training.tokens_per_step:,} tokens ({operations_text(operations)} at most)"
    )


def _index_notes(sources: Sources) -> Iterator[str]:
    """Yield a note on the cost of the gradient index, if partitions of it are missing."""
    study = sources.store.study
    stored = study.stored_projection
    missing = [each for each in study.partitions if stored and not sources.fresh(INDEX, None, each.key)]
    if stored and missing:
        shapes = {name: parameter.shape for name, parameter in sources.model.named_parameters()}
        width = sum(projector_of(stored, study).layer_dimensions(shapes).values())
        originals = sum(each.end - each.start for each in missing)
        size = originals * width * (2 if stored.stored_format == "float16" else 4)
        yield (
            f"not counted: the gradient index runs {originals:,} originals once more "
            f"and writes {bytes_text(size)} of projected gradients"
        )


def _rates_note(study: Study, known: MeasuredRates | None) -> str:
    if known is None:
        return f"time: unknown, run with --measure (gradsim plan {study.name} --measure)"
    return (
        f"time: at {operations_text(known.operations_per_second)}/s and {bytes_text(known.bytes_per_second)}/s, "
        f"measured {f'on its {known.device}' if known.site else 'here'} {known.measured}"
    )
