"""The storage resource: the data root that all tables lie below."""

from pathlib import Path

import dagster as dg

from gradsim.study import Study
from gradsim.tables import Store


class StorageResource(dg.ConfigurableResource[None]):
    """A folder, on a disk that every process of a study sees."""

    root: str

    def store(self, study: Study) -> Store:
        """The tables of one study."""
        return Store(Path(self.root), study)
