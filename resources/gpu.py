"""The GPU resource selects the model, its device and its memory budget.

It loads nothing. Each partition job loads the model once per process, on the device of the machine where it runs.
"""

import dagster as dg

from gradsim.study import ModelConfiguration
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

    def configuration(self, store: Store, method: QueryMethod | None = None) -> ModelConfiguration:
        """Return the model that a job loads: the study's, on this device, at its recorded revision.

        Args:
            store: The study's tables.
            method: Query method, if the job makes queries; it may use a different model.

        Raises:
            TableError: The study has no `model` table yet.
        """
        own = method.model_configuration(self.device) if method else None
        return own or store.model_configuration(self.device)
