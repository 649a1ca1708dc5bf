"""Fine-tuning of a pretrained model on the samples of a study: of all its weights, or of a LoRA adapter."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
from transformers import PreTrainedModel, TokenizersBackend

from gradsim.errors import ModelError
from gradsim.models.adapter import with_new_adapter
from gradsim.models.fetching import copy_tokenizer, fetch, load_tokenizer
from gradsim.models.loading import load_description, load_model
from gradsim.models.running import RunningModel
from gradsim.models.tokenizing import tokenize_for_study
from gradsim.models.training import Checkpoint, TrainedModel, replaced_folder, seeded, train
from gradsim.progress import Progress
from gradsim.study import Finetune, ModelConfiguration, Study


def finetune(
    samples: pl.DataFrame,
    folder: Path,
    base: ModelConfiguration,
    study: Study,
    plan: Finetune,
    *,
    checkpoint: Checkpoint | None = None,
    progress: Progress | None = None,
) -> TrainedModel:
    """Fine-tune a model on samples, and write it, or its adapter, to `folder` as safetensors.

    Training starts from the base model's weights and uses the study's chat template and mask. With precision bfloat16,
    passes run in bfloat16 and weights are kept in float32. On a CPU, the same seed on the same machine gives
    bit-identical weights. If training fails, `folder` is left unchanged.

    Args:
        samples: table with columns `id` and `messages`.
        folder: output folder, replaced if it exists.
        base: model to start from, with its device and precision.
        study: the study.
        plan: number and size of the updates.
        checkpoint: see `gradsim.models.training.train`.
        progress: callback that receives the number of steps done and the total.

    Raises:
        DeviceError: The device is not available.
        ModelError: The model cannot be loaded, or its loss is not finite.
        SampleError: A sample is not allowed by the study, or none has a label.
    """
    mixed = base.precision == "bfloat16"
    model = load_model(replace(base, precision="float32") if mixed else base)
    tokenizer = RunningModel(base).tokenizer
    tokenized = tokenize_for_study(samples, study, tokenizer, model)
    with replaced_folder(folder) as unfinished:
        if plan.lora is None:
            model.config.save_pretrained(unfinished)
            _save_tokenizer(tokenizer, base, unfinished)
        with seeded(study.seed if plan.seed is None else plan.seed, model.device):
            trained: Any = with_new_adapter(model, plan.lora, base.name) if plan.lora else model
            losses = train(
                trained,
                tokenized.frame,
                steps=plan.steps,
                learning_rate=plan.learning_rate,
                tokens_per_step=plan.tokens_per_step,
                mixed_precision=mixed,
                checkpoint=checkpoint,
                progress=progress,
            )
        # Otherwise PEFT would ask the Hub whether the embedding was resized.
        trained.save_pretrained(unfinished, **({"save_embedding_layers": False} if plan.lora else {}))
    return TrainedModel.of(folder, trained, losses)


def _save_tokenizer(tokenizer: Any, base: ModelConfiguration, folder: Path) -> None:
    """Write a model's tokenizer to a folder with the model's configuration, from where it loads as it is.

    Raises:
        ModelError: transformers would read the tokenizer of a GGUF file differently from the folder.
    """
    source = fetch(base.name, base.revision, weights=False, gguf=base.gguf).folder
    if not base.gguf or (source / "tokenizer.json").is_file():
        copy_tokenizer(source, folder)
        return
    # Without the class of its family, which may split text in its own way.
    TokenizersBackend(
        tokenizer_object=tokenizer.backend_tokenizer,
        chat_template=tokenizer.chat_template,
        **tokenizer.special_tokens_map,
    ).save_pretrained(folder)
    if _rules(load_tokenizer(str(folder))) != _rules(tokenizer):
        raise ModelError(
            f"model {base.name}: transformers reads the tokenizer of {base.gguf} differently from a folder; copy the "
            f"model's tokenizer.json and tokenizer_config.json to {source}"
        )


def _rules(tokenizer: Any) -> list[Any]:
    """Return how a tokenizer turns text into token ids."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    return [content[part] for part in ("normalizer", "pre_tokenizer", "model", "post_processor")]


def describe_untrained(base: ModelConfiguration, plan: Finetune) -> PreTrainedModel:
    """Return the model that `finetune` would train on the `meta` device: modules and shapes, without weights.

    Raises:
        ModelError: See `load_description`; or the LoRA adapter does not fit the model.
    """
    model = load_description(base)
    if plan.lora is None:
        return model
    adapted: Any = with_new_adapter(model, plan.lora, base.name)
    described: PreTrainedModel = adapted.get_base_model()
    return described
