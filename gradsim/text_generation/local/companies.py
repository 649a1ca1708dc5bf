"""Decide by measurement which prompts can share a batch without changing their answers.

In some models, rows affect each other: the factors of `longrope` depend on the longest position of the batch, and some
recurrent models read the padding. A few prompts of each job are therefore decoded both as the job would do it and by
transformers' `generate` alone. If their logits differ, fewer prompts share a batch.
"""

import warnings
from collections.abc import Sequence
from enum import Enum
from itertools import groupby

from transformers import PreTrainedModel

from gradsim.errors import ModelError
from gradsim.models.fresh_state import FreshState
from gradsim.models.limits import length_boundaries
from gradsim.text_generation.local.measuring import Measured, probes_of, sections
from gradsim.text_generation.local.rows import Row
from gradsim.text_generation.local.schedule import SLICE, fitting


class Company(Enum):
    """Rows that may share a batch, fastest option first."""

    ANY = "rows of any length"
    EQUAL = "rows of equal length"
    NONE = "no other row"


def independent_groups(
    model: PreTrainedModel, state: FreshState, rows: Sequence[Row], budget: int
) -> Sequence[Sequence[Row]]:
    """Divide rows into groups that `schedule.decode` can decode with the same result as each row alone.

    Args:
        model: model in eval mode.
        state: state of the model.
        rows: rows with room for at least one token.
        budget: maximum tokens of a batch.

    Raises:
        ModelError: the model is not causal, is not reproducible, or differs from `generate` even with single rows.
    """
    if not rows:
        return []
    check = _Check(Measured(model, state), budget)
    check.refuse_unusable(rows)
    if check.allows(Company.ANY, rows):
        companies = [(Company.ANY, rows)]
    else:
        parts = sections(rows, length_boundaries(model.config))
        companies = [(check.fastest(part), part) for part in parts]
        _warn(model, companies)
    return [group for company, part in companies for group in _groups(company, part, budget)]


class _Check:
    """Measurements on a job's rows."""

    def __init__(self, measured: Measured, budget: int) -> None:
        self._measured = measured
        self._budget = budget
        self._configuration = measured.model.config

    def refuse_unusable(self, rows: Sequence[Row]) -> None:
        """Raise a ModelError if logits depend on later tokens or on earlier calls."""
        probes = self._probes(rows)
        if not self._measured.repeats(probes[0], after=probes[-1]):
            raise ModelError(
                f"model {_name(self._measured.model)}: it answers a prompt differently after another one, because of "
                "state that cannot be reset; choose another model"
            )
        if not self._measured.is_causal(probes[0]):
            raise ModelError(
                f"model {_name(self._measured.model)}: its tokens attend to later ones, so it cannot answer prompts; "
                "choose a causal model, or set is_decoder in its configuration"
            )

    def fastest(self, rows: Sequence[Row]) -> Company:
        """Return the fastest option that is exact for these rows.

        Raises:
            ModelError: no option is exact.
        """
        for company in Company:
            if self.allows(company, rows):
                return company
        raise ModelError(
            f"model {_name(self._measured.model)}: even one prompt at a time, its answers differ from those of "
            "transformers' generate; choose another model"
        )

    def allows(self, company: Company, rows: Sequence[Row]) -> bool:
        """Return whether rows that share batches in this way get the same answers as alone."""
        return all(
            self._measured.is_exact(batch, read_again=company is Company.ANY)
            for batch in self._batches(company, self._probes(rows))
        )

    def _batches(self, company: Company, probes: list[Row]) -> list[list[Row]]:
        """Divide probes into batches, as the job would divide its rows."""
        if company is Company.NONE:
            return [[probe] for probe in probes]
        if company is Company.EQUAL:
            return [_of_equal_length(probe)[: fitting([probe] * 3, SLICE, self._budget)] for probe in probes]
        batches = []
        while probes:
            count = fitting(probes, SLICE, self._budget)
            batches.append(probes[:count])
            probes = probes[count:]
        return batches

    def _probes(self, rows: Sequence[Row]) -> list[Row]:
        return probes_of(rows, self._configuration)


def _of_equal_length(row: Row) -> list[Row]:
    """Return the row and two permutations of it, which have the same length."""
    return [row, row.with_ids(row.ids[::-1]), row.with_ids(row.ids[1:] + row.ids[:1])]


def _groups(company: Company, rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Divide rows into groups to decode one after the other.

    Groups of rows with equal length are small enough to fit the budget until the end, because a row that moves to a new
    batch in the middle of its answer may continue differently.
    """
    if company is Company.ANY:
        return [list(rows)]
    if company is Company.NONE:
        return [[row] for row in rows]
    groups = []
    for length, equal in groupby(sorted(rows, key=lambda row: len(row.ids)), key=lambda row: len(row.ids)):
        members = list(equal)
        count = max(1, budget // (length + max(row.room for row in members) + SLICE))
        groups += [members[start : start + count] for start in range(0, len(members), count)]
    return groups


def _warn(model: PreTrainedModel, companies: Sequence[tuple[Company, Sequence[Row]]]) -> None:
    counts = {company: sum(len(rows) for each, rows in companies if each is company) for company in Company}
    warnings.warn(
        f"model {_name(model)}: other prompts in a batch would change its answers; of {sum(counts.values())} prompts, "
        f"{counts[Company.EQUAL]} share batches with prompts of equal length only and {counts[Company.NONE]} are "
        "answered one at a time, which is exact but slower",
        stacklevel=4,
    )


def _name(model: PreTrainedModel) -> str:
    return str(model.config.name_or_path or model.config.model_type)
