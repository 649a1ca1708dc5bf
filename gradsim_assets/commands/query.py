"""The command `query`: the originals nearest to a text or to those of a file, from the stored index."""

import os
import time
from pathlib import Path

import polars as pl
from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim import models
from gradsim.dataset.samples import SAMPLES_SCHEMA, load_original_file, validate
from gradsim.dataset.turns import kind_of
from gradsim.errors import SampleError
from gradsim.notebook.texts import readable
from gradsim.partition_job.search import Nearest, Searcher
from gradsim.study.datasets import TEXT, DatasetLayout
from gradsim.tables import write_table
from gradsim_assets.commands.session import Session
from gradsim_assets.progress_bars import progress_bars
from gradsim_assets.terminal import console, print_note

# Maximum number of characters shown of an original's prompt.
_SHOWN = 160

# Maximum number of a file's texts that are shown.
_TEXTS_SHOWN = 5


def query(
    session: Session,
    text: str | None,
    answer: str | None,
    *,
    file: Path | None,
    output: Path | None,
    top: int,
    exact: bool,
) -> None:
    """Find the originals nearest to a text, and print them, or to the texts of a file, and write them to a file.

    Args:
        session: The study.
        text: A prompt or a text.
        answer: The prompt's answer.
        file: Samples in any format of a dataset, in place of `text` and `answer`.
        output: Parquet file for the originals nearest to those of `file`.
        top: Number of originals per text, by their projected gradients.
        exact: Whether to rank these originals by their full gradients.

    Raises:
        GradsimError: The arguments contradict each other, the study stores no projected gradients, or they cannot be
            used.
        SampleError: A text is empty or too long, or is a conversation although the originals are not, or the other way
            round.
    """
    if file is None:
        if text is None:
            raise SampleError("there is no text; enter one, or name a file with many: --file FILE --output FILE")
        if output is not None:
            raise SampleError("--output is for the texts of a file; name it with --file, or leave out --output")
        session.store.index()  # the most frequent reason to fail comes first
        _print_nearest(session, _sample(session, text, answer), top, exact=exact)
        return
    if text is not None or answer is not None:
        raise SampleError("--file stands in for TEXT and --answer; leave these out")
    if output is None:
        raise SampleError("--file needs a file for the result; add --output FILE.parquet")
    _refuse_output(output)
    session.store.index()
    _write_nearest(session, _samples(session, file), output, top, exact=exact)


def _sample(session: Session, text: str, answer: str | None) -> pl.DataFrame:
    """Return a prompt with its answer, or a text, as a sample."""
    for what, content in (("text", text), ("answer", answer)):
        if content is not None and not content.strip():
            raise SampleError(f"the {what} is empty; enter some words")
    if (_kind_of_originals(session) == "conversations") != (answer is not None):
        raise SampleError(
            "the originals have no prompts; leave out --answer" if answer else "the prompt has no answer; add --answer"
        )
    messages = [{"role": TEXT, "content": text}]
    if answer is not None:
        messages = [{"role": "user", "content": text}, {"role": "assistant", "content": answer}]
    return pl.DataFrame({"id": ["text"], "messages": [messages]}, schema=SAMPLES_SCHEMA)


def _samples(session: Session, file: Path) -> pl.DataFrame:
    """Return the samples of a file."""
    if not file.exists():
        raise SampleError(f"{file}: no such file; correct --file")
    samples = validate(load_original_file(file, DatasetLayout(), session.study.chat.loss_on).frame, None, str(file))
    kind, of_originals = kind_of(samples["messages"][0]), _kind_of_originals(session)
    if (kind == "conversations") != (of_originals == "conversations"):
        raise SampleError(f"{file}: contains {kind}, but the originals are {of_originals}; write the same")
    return samples


def _kind_of_originals(session: Session) -> str:
    return kind_of(session.store.read(session.store.lineage.key("samples"))["messages"][0])


def _refuse_output(output: Path) -> None:
    """Raise before the work if the result cannot be written.

    Raises:
        SampleError: It is no Parquet file, or its folder cannot be written.
    """
    if output.suffix != ".parquet" or output.is_dir():
        raise SampleError(f"{output}: is not the name of a Parquet file; correct --output")
    if not os.access(output.absolute().parent, os.W_OK):
        raise SampleError(f"{output.absolute().parent}: is not a folder that you can write; correct --output")


def _print_nearest(session: Session, sample: pl.DataFrame, top: int, *, exact: bool) -> None:
    store = session.store
    nearest, seconds = _search(session, sample, top, exact=exact)
    console.print(_originals_table(nearest.frame, readable(store, store.read(store.lineage.key("samples")))))
    console.print(f"{nearest.originals:,} originals compared in {seconds:.1f} s{_doubt(nearest.frame)}")
    _print_notes(nearest)


def _write_nearest(session: Session, samples: pl.DataFrame, output: Path, top: int, *, exact: bool) -> None:
    nearest, seconds = _search(session, samples, top, exact=exact)
    write_table(nearest.frame, output, nearest.provenance)
    texts = nearest.frame["query_id"].n_unique()
    console.print(_texts_table(nearest.frame))
    if texts > _TEXTS_SHOWN:
        console.print(f"and {texts - _TEXTS_SHOWN:,} more texts", style="dim")
    console.print(
        f"{texts:,} texts compared with {nearest.originals:,} originals in {seconds:.1f} s{_doubt(nearest.frame)}"
    )
    _print_notes(nearest)
    console.print(f"wrote {nearest.frame.height:,} rows: [bold]{escape(str(output))}[/]", soft_wrap=True)


def _search(session: Session, samples: pl.DataFrame, top: int, *, exact: bool) -> tuple[Nearest, float]:
    """Return the nearest originals, and the seconds without loading the model."""
    store, environment = session.store, session.environment
    models.hide_progress_bars()
    with console.status("loading the model"):
        searcher = Searcher(store, store.model_configuration(environment.device), environment.memory_budget)
    started = time.perf_counter()
    with progress_bars(console) as bars:
        nearest = searcher.nearest(samples, top, exact=exact, report=bars.show)
    return nearest, time.perf_counter() - started


def _print_notes(nearest: Nearest) -> None:
    """Print which texts were left out or cut."""
    for what, samples in (("left out", nearest.provenance.excluded), ("cut", nearest.provenance.truncated)):
        if samples:
            sample, note = next(iter(samples.items()))
            print_note(f"{what}: {sample} ({note}){f', and {len(samples) - 1:,} more' if len(samples) > 1 else ''}")


def _doubt(nearest: pl.DataFrame) -> str:
    """Return a remark on the standard error that the projection adds to similarities; empty if unknown."""
    error = nearest["standard_error"].max()
    return f"; projection adds a standard error of up to {error:.2g}" if isinstance(error, float) else ""


def _originals_table(nearest: pl.DataFrame, originals: pl.DataFrame) -> Table:
    """Return the table of ranks, similarities, ids and prompts."""
    prompts = {sample: messages[0]["content"] for sample, messages in originals.select("id", "messages").iter_rows()}
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", justify="right")
    similarities = _add_similarities(table, nearest)
    table.add_column("original", no_wrap=True)
    table.add_column("prompt", overflow="fold")
    for row in nearest.iter_rows(named=True):
        prompt = " ".join(prompts[row["original_id"]].split())
        shown = prompt if len(prompt) <= _SHOWN else prompt[: _SHOWN - 1] + "…"
        cells = (f"{row[name]:.4f}" for name in similarities)
        table.add_row(str(row["rank"] + 1), *cells, escape(row["original_id"]), escape(shown))
    return table


def _texts_table(nearest: pl.DataFrame) -> Table:
    """Return the table of the nearest original of the first texts."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("text", overflow="fold")
    similarities = _add_similarities(table, nearest)
    table.add_column("nearest original", overflow="fold")
    for row in nearest.filter(rank=0).head(_TEXTS_SHOWN).iter_rows(named=True):
        cells = (f"{row[name]:.4f}" for name in similarities)
        table.add_row(escape(row["query_id"]), *cells, escape(row["original_id"]))
    return table


def _add_similarities(table: Table, nearest: pl.DataFrame) -> list[str]:
    """Add a column for each kind of similarity, and return their names."""
    headings = {"exact_similarity": "exact similarity", "similarity": "similarity"}
    present = [name for name in headings if name in nearest.columns]
    for name in present:
        table.add_column(headings[name], justify="right", no_wrap=True)
    return present
