"""The command `init`: a study file for data and a model, which runs as it is."""

import json
import os
from contextlib import suppress
from pathlib import Path

from rich.markup import escape

from gradsim import models
from gradsim.dataset import samples
from gradsim.environment import read_environment
from gradsim.errors import GradsimError, SampleError, StudyError
from gradsim.queries import check_samples
from gradsim.study import FileDataset, load_study
from gradsim.study.loading import refuse_name
from gradsim.study.settings import WordDropout
from gradsim_assets.terminal import console

_TEMPLATE = """\
# Next: `gradsim plan {name}` shows the cost, `gradsim run {name}` computes everything. All keys: docs/studies.md.
# description: One line, which `gradsim list` shows

dataset:
  path: {path} # format {format}
samples: {samples} # number of samples in the data

model:
  name: {model} # on the Hugging Face Hub, or a folder
  # precision: bfloat16 # half the memory of float32

{chat}

settings: # how queries are made from the samples
  word_dropout: # a control without another model: drop every 7th word
    method: word_dropout
    every: 7
  # paraphrased: # rewritten by a model behind an API, with OPENAI_API_KEY
  #   method: paraphrase
  # model_generated: # the rewritten prompts, answered by the studied model
  #   method: generate
  #   prompts: paraphrased
  #   max_new_tokens: 256

top_k: 5 # candidates per query, the best by BM25; or all
projections: # to compare with the full gradient
  - {{kind: sjlt, share: 0.01}}
partition_size: 100 # queries that are computed and stored together
seed: 42
"""

_TULU = """\
chat:
  template: tulu # for a model without a chat template"""


def write_study(name: str, data: Path, model: str) -> None:
    """Write a commented study file into the studies folder, and say what comes next.

    Args:
        name: Name of the study.
        data: File or folder of the samples.
        model: Model on the Hub, or its folder.

    Raises:
        StudyError: The name is taken or not valid, or the file cannot be written.
        SampleError: The data cannot be read, or are not conversations or texts.
    """
    environment = read_environment()
    refuse_name(name, environment)
    path = environment.studies_folder / f"{name}.yaml"
    if not data.exists():
        raise SampleError(f"{data}: no such file; correct --data")
    loaded = samples.load_original_file(data, FileDataset(path=data))
    frame = samples.validate(loaded.frame, None, str(data))
    try:
        check_samples(WordDropout(), frame)
    except SampleError as error:
        raise SampleError(f"{data}: {error}, and write the study file yourself (docs/studies.md)") from error
    model = str(Path(model).resolve()) if Path(model).is_dir() else model
    needed = loaded.format != "text" and not _has_chat_template(model)
    text = _TEMPLATE.format(
        name=name,
        path=_quoted(_from(path.parent, data.resolve())),
        format=loaded.format,
        samples=frame.height,
        model=_quoted(model),
        chat=_TULU if needed else "# " + _TULU.replace("\n", "\n# "),
    )
    _write_new(path, text)
    try:
        load_study(name, environment)
    except StudyError:
        path.unlink()
        raise
    console.print(f"{frame.height:,} samples, format {loaded.format}", soft_wrap=True)
    if loaded.ignored:
        console.print(f"not used: {escape(', '.join(loaded.ignored))}", soft_wrap=True)
    console.print(f"wrote [bold]{escape(str(path))}[/]", soft_wrap=True)
    console.print(f"next: [bold]gradsim plan {name}[/], then [bold]gradsim run {name}[/]")


def _has_chat_template(model: str) -> bool:
    """Return whether a model has a chat template; true if its tokenizer cannot be had, which `plan` explains."""
    with suppress(GradsimError):
        return bool(models.load_tokenizer(model).chat_template)
    return True


def _from(folder: Path, path: Path) -> str:
    """Return a path relative to the folder of the study files if it is in the same project, otherwise as it is."""
    return os.path.relpath(path, folder) if path.is_relative_to(folder.parent) else str(path)


def _quoted(text: str) -> str:
    """Return a text as a YAML string."""
    return json.dumps(text, ensure_ascii=False)


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise StudyError(f"{path}: already exists; choose another name") from error
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be written ({error.strerror}); set GRADSIM_STUDIES to another folder"
        ) from error
