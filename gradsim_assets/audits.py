"""Verdicts of a study's audits: nobody who runs a study may overlook a wrong number."""

from collections.abc import Sequence

from gradsim.analysis import Verdict, audit_verdict
from gradsim.errors import GradsimError
from gradsim.tables import State, Store
from gradsim.tables.lineage import AUDIT


class AuditError(GradsimError):
    """Stored numbers are not those of plain autograd."""


def audit_verdicts(store: Store, settings: Sequence[str]) -> dict[str, Verdict]:
    """Return the verdict of each of these settings whose audit is there and fresh."""
    keys = {setting: store.lineage.key(AUDIT, setting, "analysis") for setting in settings}
    return {
        setting: audit_verdict(store.read(key), store.study.model.precision)
        for setting, key in keys.items()
        if key in store.lineage and store.state(key) is State.FRESH
    }


def refuse_wrong_numbers(store: Store, settings: Sequence[str]) -> None:
    """Raise for the first of these settings whose audit failed.

    Raises:
        AuditError: a setting's audit failed; names the worst number, and says what to do.
    """
    for setting, verdict in audit_verdicts(store, settings).items():
        if not verdict.passed:
            study = store.study.name
            raise AuditError(
                f"the audit of {study}/{setting} failed: {verdict}. Do not rely on this setting's numbers; compute "
                f"them again (gradsim run {study} --setting {setting} --force), and report the model if it fails again"
            )
