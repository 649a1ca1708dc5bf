"""Verdicts of a study's audits. A failed audit fails the command, so that wrong numbers cannot go unnoticed."""

from collections.abc import Sequence

from gradsim.analysis import Verdict, audit_verdict
from gradsim.errors import GradsimError
from gradsim.tables import State, Store
from gradsim.tables.lineage import AUDIT


class AuditError(GradsimError):
    """Error raised if stored numbers differ from plain autograd."""


def audit_verdicts(store: Store, settings: Sequence[str]) -> dict[str, Verdict]:
    """Return the verdicts of these settings, for audits that exist and are fresh."""
    keys = {setting: store.lineage.key(AUDIT, setting, "analysis") for setting in settings}
    return {
        setting: audit_verdict(store.read(key), store.study.model.precision)
        for setting, key in keys.items()
        if key in store.lineage and store.state(key) is State.FRESH
    }


def refuse_wrong_numbers(store: Store, settings: Sequence[str]) -> None:
    """Raise for the first of these settings with a failed audit.

    Raises:
        AuditError: A setting's audit failed. The message names the worst number and the next steps.
    """
    for setting, verdict in audit_verdicts(store, settings).items():
        if not verdict.passed:
            study = store.study.name
            raise AuditError(
                f"the audit of {study}/{setting} failed: {verdict}. Do not rely on this setting's numbers; recompute "
                f"them (gradsim run {study} --setting {setting} --force), and report the model if it fails again"
            )
