"""The GPU resource: which model runs where and how.

It loads nothing itself: a partition job does, once a process, on the device of the machine where it runs.
"""

import dagster as dg

from gradsim.study import HubModel, ModelConfiguration, Study
from gradsim.study.settings import QueryMethod
from gradsim.tables import Store


class GPUResource(dg.ConfigurableResource[None]):
    """The device for a study's model.

    What changes numbers (model, revision, precision, attention implementation) stands in the study; what does not
    stands here.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N`, or `auto`: the first GPU if there is one.
        memory_budget: bytes that gradients may take on the device; None: what is free, less a margin.
    """

    device: str = "auto"
    memory_budget: int | None = None

    def configuration(self, study: Study, store: Store, method: QueryMethod | None = None) -> ModelConfiguration:
        """What a job is to load: the revision that the study's tables were begun with, on this device.

        Args:
            study: the study.
            store: its tables.
            method: the query method, if the job makes queries; it may have a model of its own.
        """
        if method and (own := method.model_configuration(self.device)):
            return own
        name, revision = model_source(study, store)
        return ModelConfiguration(
            name=name,
            revision=revision,
            device=self.device,
            precision=study.model.precision,
            attention=study.model.attention,
        )


def model_source(study: Study, store: Store) -> tuple[str, str | None]:
    """Folder or Hub name of a study's model, and the revision that its `model` table names.

    Raises:
        TableError: there is no such table yet.
    """
    name = study.model.name if isinstance(study.model, HubModel) else str(store.model_folder)
    return name, store.provenance(store.lineage.key("model")).revision
