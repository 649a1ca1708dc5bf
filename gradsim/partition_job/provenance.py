"""What a job writes of the model into the files it makes."""

from gradsim.partition_job.job import PartitionJob
from gradsim.tables import Provenance, Store


def model_provenance(job: PartitionJob, store: Store, device: str) -> Provenance:
    """Model, revision, precision and the device as resolved here."""
    model = store.provenance(store.lineage.key("model"))
    return Provenance(model=model.model, revision=model.revision, device=device, precision=job.model.precision)
