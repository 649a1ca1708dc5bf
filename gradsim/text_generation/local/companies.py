"""Which prompts may share a batch without a change to their answers: measured, not assumed.

Some models look at the whole batch. The factors of `longrope`, for example, depend on its longest position, and some
models with states read the padding. So a few prompts of each job are decoded as the job would decode them and by
transformers' `generate` alone. Where logits differ, fewer prompts share a batch.
"""

import warnings
from collections.abc import Sequence
from enum import Enum
from itertools import groupby

from transformers import PreTrainedModel

from gradsim.errors import ModelError
from gradsim.models.fresh_state import FreshState
from gradsim.models.limits import length_boundaries
from gradsim.text_generation.local.measuring import Measured
from gradsim.text_generation.local.probes import probes_of, sections
from gradsim.text_generation.local.rows import Row
from gradsim.text_generation.local.schedule import SLICE, fitting


class Company(Enum):
    """Who may share a batch, the fastest way first."""

    ANY = "rows of any length"
    EQUAL = "rows of equal length"
    NONE = "no other row"


def independent_groups(
    model: PreTrainedModel, state: FreshState, rows: Sequence[Row], budget: int
) -> Sequence[Sequence[Row]]:
    """Divide rows into groups in which `schedule.decode` answers each as if it were alone.

    Args:
        model: in eval mode.
        state: the model's.
        rows: with room for a token each.
        budget: tokens in a batch.

    Raises:
        ModelError: a model that sees later tokens, or none of the ways is exact.
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
    """What is measured on a job's rows."""

    def __init__(self, measured: Measured, budget: int) -> None:
        self._measured = measured
        self._budget = budget
        self._configuration = measured.model.config

    def refuse_unusable(self, rows: Sequence[Row]) -> None:
        """Raise an error where later tokens change what the model says of earlier ones, or other calls do."""
        probes = self._probes(rows)
        if not self._measured.repeats(probes[0], after=probes[-1]):
            raise ModelError(
                f"model {_name(self._measured.model)}: it answers a prompt differently after another one, from state "
                "that cannot be put back; choose another model"
            )
        if not self._measured.is_causal(probes[0]):
            raise ModelError(
                f"model {_name(self._measured.model)}: its tokens see later ones, so it cannot answer prompts; choose "
                "a causal model, or set is_decoder in its configuration"
            )

    def fastest(self, rows: Sequence[Row]) -> Company:
        """Return the company of the fastest way that is exact for these rows."""
        for company in Company:
            if self.allows(company, rows):
                return company
        raise ModelError(
            f"model {_name(self._measured.model)}: even one prompt at a time, it does not go on as transformers' "
            "generate does; choose another model"
        )

    def allows(self, company: Company, rows: Sequence[Row]) -> bool:
        """Whether rows in such company are answered as they are alone."""
        return all(
            self._measured.is_exact(batch, read_again=company is Company.ANY)
            for batch in self._batches(company, self._probes(rows))
        )

    def _batches(self, company: Company, probes: list[Row]) -> list[list[Row]]:
        """Probes as they would share batches."""
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
    """The row and others of its tokens in another order."""
    return [row, row.with_ids(row.ids[::-1]), row.with_ids(row.ids[1:] + row.ids[:1])]


def _groups(company: Company, rows: Sequence[Row], budget: int) -> list[list[Row]]:
    """Rows that are decoded one group after the other.

    Rows of equal length stay together up to their ends, for which a batch has room from its beginning: a row that is
    read again in the middle of its answer may go on differently.
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
