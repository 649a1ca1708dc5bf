"""Model provenance of a job's output files."""

from gradsim.partition_job.job import PartitionJob
from gradsim.tables import Provenance, Store


def model_provenance(job: PartitionJob, store: Store, device: str) -> Provenance:
    """Return a provenance with model, revision, precision and device."""
    model = store.provenance(store.lineage.key("model"))
    return Provenance(model=model.model, revision=model.revision, device=device, precision=job.model.precision)
