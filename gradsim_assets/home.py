"""The folder of the Dagster instance, as far as it can be read without importing Dagster, which takes seconds."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from gradsim.environment import Environment, project_root
from gradsim.errors import StudyError, parsing


def dagster_home(environment: Environment) -> Path:
    """Return the folder of the Dagster instance, which may not exist yet: `DAGSTER_HOME` or `<data root>/.dagster`."""
    home = os.environ.get("DAGSTER_HOME") or environment.data_root / ".dagster"
    return Path(home).expanduser().resolve()


def configured_storage(home: Path) -> dict[str, Any]:
    """Return the `storage` section of the instance's `dagster.yaml`; empty for the default, SQLite in its folder.

    Raises:
        StudyError: The file is malformed.
    """
    path = next((path for path in (home / "dagster.yaml", project_root() / "dagster.yaml") if path.is_file()), None)
    with parsing(StudyError, f"{path}: not a configuration of Dagster", "correct its syntax"):
        content = yaml.safe_load(path.read_text(encoding="utf-8")) if path else None
        found = content if isinstance(content, dict) else {}
        return dict(found.get("storage") or found.get("run_storage") or {})


def may_have_failed_runs(home: Path) -> bool:
    """Return whether the instance has a failed run, or stores its runs where only Dagster can read them.

    Raises:
        StudyError: `dagster.yaml` is malformed.
    """
    runs = home / "history" / "runs.db"
    if not home.exists() or configured_storage(home):
        return home.exists()
    try:
        with closing(sqlite3.connect(f"{runs.as_uri()}?mode=ro", uri=True)) as database:
            return database.execute("SELECT 1 FROM runs WHERE status = 'FAILURE' LIMIT 1").fetchone() is not None
    except sqlite3.Error:  # absent, or in another version's format
        return True
