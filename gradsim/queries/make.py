"""Making the queries of a setting by its method, and looking for faults in them."""

from dataclasses import replace

import polars as pl

from gradsim.dataset.turns import kind_of, last_turn
from gradsim.errors import SampleError, enumerated
from gradsim.queries import generating, rewriting, without_model
from gradsim.queries.method import QUERIES_SCHEMA, MadeQueries, QueryContext, rewrite
from gradsim.queries.quality import FAULTS, fault_table
from gradsim.study.settings import QueryMethod, query_methods

# Importing these registers their methods with `rewrite`.
METHODS = (generating, rewriting, without_model)

_PART_OF_SAMPLE = {"user": "prompt", "assistant": "answer", "text": "text"}


def check_samples(settings: QueryMethod, samples: pl.DataFrame) -> None:
    """Check that a method makes queries of samples like the first one, since all have the same format.

    Raises:
        SampleError: it does not.
    """
    for messages in samples["messages"].head(1).to_list():
        if (kind := kind_of(messages)) not in settings.reads:
            methods = [name for name, each in query_methods().items() if kind in each.reads]
            raise SampleError(
                f"method {settings.method} makes no queries of {kind}; use the method {enumerated(methods, 'or')}"
            )


def make_queries(settings: QueryMethod, samples: pl.DataFrame, context: QueryContext) -> MadeQueries:
    """Return the queries of samples, without those that the study's quality settings exclude.

    Args:
        settings: the method and its keys.
        samples: columns `id` (as text) and `messages`: originals, or queries of the setting `settings.source`.
        context: other inputs of the method.

    Raises:
        GradsimError: an error that the user can fix; paid answers stay in the journals.
    """
    check_samples(settings, samples)
    made = rewrite(settings, samples, context)
    faults = fault_table(samples, made.frame, settings.quality.bounds, only=settings.faults)
    excluded: dict[str, str] = {}
    for query, role, fault in faults.select("id", "role", "fault").iter_rows():
        if settings.quality.excludes(fault):
            reason = f"its {_PART_OF_SAMPLE[role]}: {FAULTS[fault]}"
            excluded[query] = f"{excluded[query]}; {reason}" if query in excluded else reason
    kept = _with_faults(made.frame, faults).filter(~pl.col("id").is_in(list(excluded)))
    return replace(made, frame=kept, excluded={**made.excluded, **excluded})


def _with_faults(queries: pl.DataFrame, faults: pl.DataFrame) -> pl.DataFrame:
    names: dict[tuple[str, str], list[str]] = {}
    for query, role, fault in faults.select("id", "role", "fault").iter_rows():
        names.setdefault((query, role), []).append(fault)
    lists: list[list[list[str]]] = []
    for query, messages in queries.select("id", "messages").iter_rows():
        turn = {place: role for role, place in last_turn(messages).items()}
        lists.append([names.get((query, turn.get(place, "")), []) for place in range(len(messages))])
    return queries.with_columns(pl.Series("faults", lists, QUERIES_SCHEMA["faults"]))
