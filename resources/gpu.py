"""The GPU resource selects the model, its device and its memory budget.

It loads nothing. Each partition job loads the model once per process, on the device of the machine where it runs.
"""

import dagster as dg

from gradsim.study import HubModel, ModelConfiguration, Study
from gradsim.study.settings import QueryMethod
from gradsim.tables import Store


class GPUResource(dg.ConfigurableResource[None]):
    """The device for a study's model.

    The study file holds everything that affects results: model, revision, precision and attention implementation.
    This resource holds the rest.

    Attributes:
        device: `cpu`, `cuda`, `cuda:N`, or `auto` for the first GPU if there is one.
        memory_budget: Maximum number of bytes that gradients may use on the device; None for the free memory minus a
            margin.
    """

    device: str = "auto"
    memory_budget: int | None = None

    def configuration(self, study: Study, store: Store, method: QueryMethod | None = None) -> ModelConfiguration:
        """Return the model that a job loads: the revision recorded in the study's `model` table, on this device.

        Args:
            study: The study.
            store: The study's tables.
            method: Query method, if the job makes queries; it may use a different model.

        Raises:
            TableError: The study has no `model` table yet.
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
    """Return the folder or Hub name of a study's model, and the revision recorded in its `model` table.

    Raises:
        TableError: The study has no `model` table yet.
    """
    name = study.model.name if isinstance(study.model, HubModel) else str(store.model_folder)
    return name, store.provenance(store.lineage.key("model")).revision
