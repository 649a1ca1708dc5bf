"""Provenance of a report: what was studied, and how, when and by which code it was computed."""

from collections.abc import Iterable
from pathlib import Path

from gradsim import __version__
from gradsim.environment import code_commit, read_environment
from gradsim.study import FileDataset, HubDataset, Study
from gradsim.study.loading import study_file
from gradsim.tables import Provenance, Store
from gradsim.tables.provenance import now


def provenance_of(store: Store) -> dict[str, str]:
    """Return the provenance of the numbers by label; lists all values if partitions differ, and omits unknown ones."""
    study, lineage = store.study, store.lineage
    room = "results" if study.imported else None
    dots = [lineage.key("dot_products", setting, room) for setting in study.settings]
    files = [store.provenance(key, partition) for key in dots for partition in store.partitions(key)]
    created = sorted(file.created for file in files)
    said = {
        "Study": study.name,
        "Study file": _short(_path(study)),
        "Fingerprint": lineage.fingerprint(lineage.key("report")),
        "Dataset": f"{_dataset(study)}, {study.samples:,} samples",
        "Candidates (top_k)": "imported"
        if study.imported
        else f"{study.top_k}, by BM25 of {_SEARCHED[study.bm25_part]}",
        "Chat template": "" if study.imported else _template(study),
        "Model and revision": _listed(_model(file) for file in files),
        "Device": _listed(file.device for file in files),
        "Layers": _layers(store),
        "Precision": _listed(file.precision for file in files),
        "Seed": str(study.seed),
        "Gradients imported" if study.imported else "Gradients computed": (
            created[0] if len(set(created)) == 1 else f"{created[0]} to {created[-1]}"
        ),
        "Code of the gradients": _listed(_code(file.code_version, file.commit) for file in files),
        "Report written": now(),
        "Code of the report": _code(__version__, code_commit()),
        "Import findings": " ".join(_import_findings(store)),
    }
    return {label: value for label, value in said.items() if value}


_SEARCHED = {"prompt": "prompts", "answer": "answers", "both": "prompts and answers"}


def definition_of(study: Study) -> str:
    """Return the text of the study's file.

    Raises:
        StudyError: The file is gone.
    """
    return _path(study).read_text(encoding="utf-8")


def _path(study: Study) -> Path:
    return study_file(study.name, read_environment())


def _short(path: Path) -> str:
    """Return the name of a file with its folder; readers elsewhere have no use for more."""
    return f"{path.parent.name}/{path.name}"


def _dataset(study: Study) -> str:
    match study.dataset:
        case HubDataset(hub=hub, subset=subset, split=split, revision=revision):
            return ", ".join(filter(None, (hub, subset, f"split {split}", revision and f"revision {revision}")))
        case FileDataset(path=path):
            return _short(path)
        case _:
            return f"imported results {study.dataset.imported}"


def _template(study: Study) -> str:
    if study.chat.file:
        return _short(study.chat.file)
    return "tulu" if study.template == "tulu" else "that of the model"


def _code(version: str, commit: str | None) -> str:
    return f"gradsim {version}, " + (f"commit {commit}" if commit else "commit not recorded")


def _import_findings(store: Store) -> list[str]:
    """Return the findings of `gradsim import-published`; none for a computed study."""
    if not store.study.imported:
        return []
    return list(store.provenance(store.lineage.key("samples")).measured.get("findings", []))


def _model(file: Provenance) -> str | None:
    return f"{file.model}, revision {file.revision}" if file.model and file.revision else file.model


def _layers(store: Store) -> str:
    """Return which layers the study compares; empty if all."""
    if store.study.layers is None:
        return ""
    chosen, every = (store.read(key)["parameters"] for key in (store.lineage.layers_key, store.lineage.key("model")))
    return f"{len(chosen)} of {len(every)}, with {100 * sum(chosen) / sum(every):.3g} % of the model's parameters"


def _listed(values: Iterable[str | None]) -> str:
    return "; ".join(dict.fromkeys(value for value in values if value))
