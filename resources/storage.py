"""The storage resource: the data root, which holds the tables of all studies."""

from pathlib import Path

import dagster as dg

from gradsim.study import Study
from gradsim.tables import Store


class StorageResource(dg.ConfigurableResource[None]):
    """The data root: a folder that every process of a study can access."""

    root: str

    def store(self, study: Study) -> Store:
        """Return the tables of a study."""
        return Store(Path(self.root), study)
