"""The API resource: the OpenAI-compatible server that paraphrases samples.

Neither its key nor its address enters the run config.
"""

import logging

import dagster as dg
import polars as pl

from gradsim.environment import read_environment
from gradsim.progress import WorkDone, in_steps
from gradsim.queries import QueryContext
from gradsim.tables import Store
from resources.messages import log_progress

_SILENT = logging.Logger("silent")


class ParaphraserResource(dg.ConfigurableResource[None]):
    """An OpenAI-compatible API. `OPENAI_BASE_URL` and `OPENAI_API_KEY` are read when they are needed."""

    def query_context(
        self, store: Store, setting: str, originals: pl.DataFrame, log: logging.Logger = _SILENT
    ) -> QueryContext:
        """Return the context for making a setting's queries without a local model.

        Args:
            store: The study's tables.
            setting: Name of the setting.
            originals: All originals of the study.
            log: Log for the expected spending and for progress.
        """
        return QueryContext(
            name=f"{store.study.name}/{setting}",
            seed=store.study.seed,
            ids=originals["id"].to_list(),
            trial=store.study.first_samples is not None,
            journals=store.journals,
            base_url=read_environment().openai_base_url,
            progress=in_steps(
                lambda done, total: log_progress(log, WorkDone(f"{setting} paraphrases", done, total, "texts"))
            ),
            say=log.info,
        )
