"""Training of the studied model on the study's samples."""

from typing import Any

import polars as pl
import torch

from gradsim.errors import ModelError
from gradsim.gradients.capture.precision import plain_arithmetic, precision_of
from gradsim.models import (
    Checkpoint,
    RunningModel,
    TrainedModel,
    finetune,
    layers_table,
    resolve_device,
    train_reference_model,
)
from gradsim.partition_job.job import PartitionJob, Work
from gradsim.progress import Progress
from gradsim.study import HubModel, ReferenceModel
from gradsim.tables import Provenance, Store
from gradsim.tables.seal import file_digest


def compute_training(job: PartitionJob, store: Store, work: Work, progress: Progress) -> dict[str, Any]:
    """Train the model, write it to the study's folder, and write the table `model`, the only one in `work`.

    Returns:
        The number of trained parameters, and the first and the final loss in nats.

    Raises:
        GradsimError: an error that the user can fix.
    """
    samples = store.read(store.lineage.key("samples")).with_columns(pl.col("id").cast(pl.String))
    checkpoint = _checkpoint(job, store)
    if job.force:
        checkpoint.remove()
    trained = _train(job, store, samples, checkpoint, progress)
    configuration = job.study.model_configuration(job.model.revision, store.model_folder)
    store.write(
        job.only_key,
        layers_table(configuration),
        provenance=Provenance(
            model=_name(job),
            revision=RunningModel(configuration).revision,
            # Reference models are always trained on the CPU.
            device=resolve_device(job.model.device) if isinstance(job.study.model, HubModel) else "cpu",
            precision=job.model.precision,
            files={
                path.relative_to(store.model_folder.parent).as_posix(): file_digest(path)
                for path in sorted(store.model_folder.iterdir())
            },
        ),
    )
    checkpoint.remove()
    return {
        "trained_parameters": trained.parameters,
        "first_loss_nats": trained.first_loss,
        "final_loss_nats": trained.final_loss,
    }


def _train(
    job: PartitionJob, store: Store, samples: pl.DataFrame, checkpoint: Checkpoint, progress: Progress
) -> TrainedModel:
    study, folder = job.study, store.model_folder
    match study.model:
        case ReferenceModel(reference=architecture):
            return train_reference_model(
                samples,
                folder,
                **architecture.model_dump(),
                seed=study.seed,
                max_length=study.max_length,
                truncate=study.truncate,
                on_long_sample=study.on_long_sample,
                checkpoint=checkpoint,
                progress=progress,
            )
        case HubModel(finetune=plan) if plan:
            device = torch.device(resolve_device(job.model.device))
            with plain_arithmetic(device, precision_of(job.model.precision).products):
                return finetune(samples, folder, job.model, study, plan, checkpoint=checkpoint, progress=progress)
    raise ModelError(f"study '{study.name}' does not train its model")


def _checkpoint(job: PartitionJob, store: Store) -> Checkpoint:
    """Return the checkpoint of a training with this definition and these samples."""
    (fingerprint,) = job.fingerprints.values()
    samples = store.provenance(store.lineage.key("samples")).data_version
    return Checkpoint(store.checkpoint, f"{fingerprint} {samples}")


def _name(job: PartitionJob) -> str:
    model = job.study.model
    return f"{model.name}, fine-tuned" if isinstance(model, HubModel) else "model"
