"""The command `query`: the originals nearest to a text, from the stored index."""

import time

import polars as pl
from rich import box
from rich.markup import escape
from rich.table import Table

from gradsim import models
from gradsim.dataset.turns import kind_of
from gradsim.errors import SampleError
from gradsim.notebook.texts import readable
from gradsim.partition_job.search import Searcher
from gradsim_assets.commands.session import Session
from gradsim_assets.terminal import console

# Maximum number of characters shown of an original's prompt.
_SHOWN = 160


def print_nearest(session: Session, text: str, answer: str | None, top: int) -> None:
    """Print the `top` originals with projected gradients most similar to that of a text, or of a prompt and its answer.

    Raises:
        GradsimError: The study stores no projected gradients, or they cannot be used.
        SampleError: There is no answer, but the originals are conversations, or the other way round.
    """
    store, environment = session.store, session.environment
    index = store.index()  # fail before the model is loaded, which takes longer
    originals = store.read(store.lineage.key("samples"))
    if (kind_of(originals["messages"][0]) == "conversations") != (answer is not None):
        raise SampleError(
            "the originals have no prompts; leave out --answer" if answer else "the prompt has no answer; add --answer"
        )
    model = store.model_configuration(environment.device)
    models.hide_progress_bars()
    with console.status("loading the model"):
        searcher = Searcher(session.study, index, model, environment.memory_budget)
    started = time.perf_counter()
    with console.status("comparing with the stored originals"):
        nearest = searcher.nearest(text, answer)
    seconds = time.perf_counter() - started
    console.print(_table(nearest.head(top), readable(store, originals)))
    console.print(f"{nearest.height:,} originals compared in {seconds:.1f} s{_doubt(nearest)}", highlight=False)


def _doubt(nearest: pl.DataFrame) -> str:
    """Return a remark on the standard error that the projection adds to similarities; empty if unknown."""
    error = nearest["standard_error"].max()
    return f"; projection adds a standard error of up to {error:.2g}" if isinstance(error, float) else ""


def _table(nearest: pl.DataFrame, originals: pl.DataFrame) -> Table:
    """Return the table of ranks, similarities, ids and prompts."""
    prompts = {sample: messages[0]["content"] for sample, messages in originals.select("id", "messages").iter_rows()}
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("", justify="right")
    table.add_column("similarity", justify="right", no_wrap=True)
    table.add_column("original", no_wrap=True)
    table.add_column("prompt", overflow="fold")
    for place, (original, similarity, _) in enumerate(nearest.iter_rows(), start=1):
        prompt = " ".join(prompts[original].split())
        shown = prompt if len(prompt) <= _SHOWN else prompt[: _SHOWN - 1] + "…"
        table.add_row(str(place), f"{similarity:.4f}", escape(original), escape(shown))
    return table
