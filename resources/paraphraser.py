"""The API resource: the OpenAI-compatible server that paraphrases samples.

Neither its key nor its address enters the run config.
"""

from collections.abc import Callable

import dagster as dg
import polars as pl

from gradsim.environment import read_environment
from gradsim.progress import in_steps
from gradsim.queries import QueryContext
from gradsim.tables import Store


class ParaphraserResource(dg.ConfigurableResource[None]):
    """An OpenAI-compatible API. `OPENAI_BASE_URL` and `OPENAI_API_KEY` are read when they are needed."""

    def query_context(
        self, store: Store, setting: str, originals: pl.DataFrame, log: Callable[[str], None] = lambda line: None
    ) -> QueryContext:
        """Return the context for making a setting's queries without a local model.

        Args:
            store: The study's tables.
            setting: Name of the setting.
            originals: All originals of the study.
            log: Callback for the expected spending and for progress lines.
        """
        return QueryContext(
            name=f"{store.study.name}/{setting}",
            seed=store.study.seed,
            ids=originals["id"].to_list(),
            trial=store.study.first_samples is not None,
            journals=store.journals,
            base_url=read_environment().openai_base_url,
            progress=in_steps(lambda done, total: log(f"{setting} paraphrases: {done} of {total} texts")),
            say=log,
        )
