"""Training of a model on tokenized samples with AdamW, resumable from a checkpoint."""

import hashlib
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from gradsim import chat
from gradsim.errors import ModelError, SampleError

CHECKPOINT_SECONDS = 300.0
"""Time between checkpoints."""

_BETAS = (0.9, 0.95)
_WEIGHT_DECAY = 0.1
_LARGEST_NORM = 1.0
_WARM_UP_SHARE = 0.1
_FINAL_SHARE = 0.1  # of the learning rate

# Tokens of a forward and backward pass, including padding; larger steps take several passes.
_TOKENS_PER_PASS = 2048


class TrainedModel(NamedTuple):
    """Result of training a model.

    Attributes:
        folder: folder of the model or the adapter.
        parameters: number of trained parameters, tied ones counted once.
        steps: number of updates.
        first_loss: mean cross-entropy of the unmasked labels at the first step, in nats.
        final_loss: average of that loss over the last tenth of the steps, in nats.
    """

    folder: Path
    parameters: int
    steps: int
    first_loss: float
    final_loss: float

    @classmethod
    def of(cls, folder: Path, model: nn.Module, losses: Sequence[float]) -> "TrainedModel":
        """Return the result for a trained model and the loss of each step."""
        last = losses[-max(1, len(losses) // 10) :]
        parameters = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
        return cls(folder, parameters, len(losses), losses[0], math.fsum(last) / len(last))


class Batch(NamedTuple):
    """Batch of samples of similar length, padded on the right; both tensors are (samples, tokens).

    No attention mask is needed: under causal attention, no token attends to the padding on its right.
    """

    input_ids: Tensor
    labels: Tensor

    @property
    def predicted(self) -> int:
        """Number of labels with a loss; nothing predicts the first token."""
        return int((self.labels[:, 1:] != chat.MASKED).sum())


@dataclass(frozen=True)
class Checkpoint:
    """File with the state of an unfinished training.

    Attributes:
        path: file; it is replaced atomically.
        identity: digest of everything that affects the training; a checkpoint with another one is ignored.
    """

    path: Path
    identity: str

    def read(self) -> dict[str, Tensor]:
        """Return the stored tensors; none if there is no checkpoint of this training, or it is damaged."""
        try:
            with safe_open(self.path, framework="pt") as file:
                said: Mapping[str, str] = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        except (OSError, SafetensorError):
            return {}
        return tensors if said == self._metadata(tensors) else {}

    def write(self, tensors: Mapping[str, Tensor]) -> None:
        """Store tensors.

        Raises:
            ModelError: The file cannot be written.
        """
        stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(stored, self._unfinished, self._metadata(stored))
            self._unfinished.replace(self.path)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"checkpoint {self.path}: cannot be written ({error}); make room or make it writable, and run again"
            ) from error

    def remove(self) -> None:
        """Delete the file, if there is one, and what a killed process left of it."""
        for path in (self.path, self._unfinished):
            path.unlink(missing_ok=True)

    @property
    def _unfinished(self) -> Path:
        return self.path.with_suffix(".partial")

    def _metadata(self, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        digest = hashlib.sha256()
        for name in sorted(tensors):
            digest.update(name.encode())
            digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
        return {"identity": self.identity, "digest": digest.hexdigest()}


def train(
    model: nn.Module,
    tokenized: pl.DataFrame,
    *,
    steps: int,
    learning_rate: float,
    tokens_per_step: int,
    mixed_precision: bool = False,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[float]:
    """Train the parameters of a model that require gradients, in place.

    A step takes samples of similar length, in random order, and minimizes the mean cross-entropy of their unmasked
    labels. The learning rate rises linearly in the first tenth of the steps and then falls along a cosine to a tenth.
    A training that continues from a checkpoint gives the same weights as one that was not interrupted.

    Args:
        model: causal language model of transformers, or a PEFT model.
        tokenized: table with columns `id`, `input_ids` and `labels`; samples without labels are not used.
        steps: number of updates; the samples repeat as often as needed.
        learning_rate: highest learning rate.
        tokens_per_step: maximum tokens per step, including padding; a longer sample forms its own step.
        mixed_precision: whether to compute in bfloat16; weights and updates keep the model's dtype.
        checkpoint: where to store the state every `CHECKPOINT_SECONDS`, and to continue from.
        progress: callback that receives the number of steps done and the total, before the first step as well.

    Returns:
        The loss of each step in nats.

    Raises:
        SampleError: No sample has a label.
        ModelError: The loss is not finite, or a checkpoint cannot be written.
    """
    batches = batched(tokenized, tokens_per_step)
    state = _State(model, learning_rate)
    if checkpoint:
        state.restore(checkpoint.read())
    if progress:
        progress(len(state.losses), steps)
    saved = time.monotonic()
    model.train()
    for step in range(len(state.losses), steps):
        if not state.order:
            state.order = torch.randperm(len(batches)).tolist()
        state.optimizer.param_groups[0]["lr"] = learning_rate * _learning_rate_factor(step, steps)
        with torch.autocast(state.device.type, torch.bfloat16, enabled=mixed_precision):
            loss = _add_gradient(model, batches[state.order.pop()], state.device)
        if not math.isfinite(loss):
            raise ModelError(f"training: the loss of step {step + 1} is {loss}; set a smaller learning_rate")
        nn.utils.clip_grad_norm_(state.parameters, _LARGEST_NORM)
        state.optimizer.step()
        state.optimizer.zero_grad()
        state.losses.append(loss)
        if progress:
            progress(step + 1, steps)
        if checkpoint and time.monotonic() - saved >= CHECKPOINT_SECONDS:
            checkpoint.write(state.tensors())
            saved = time.monotonic()
    model.eval()
    return state.losses


def _add_gradient(model: nn.Module, batch: Batch, device: torch.device) -> float:
    """Add the gradient of a batch's mean loss to that of the parameters, and return the loss."""
    rows = max(1, _TOKENS_PER_PASS // batch.input_ids.shape[1])
    loss = 0.0
    for start in range(0, len(batch.labels), rows):
        part = Batch(*(tensor[start : start + rows].to(device) for tensor in batch))
        of_part = model(input_ids=part.input_ids, labels=part.labels, use_cache=False).loss
        share = of_part * (part.predicted / batch.predicted)
        share.backward()
        loss += share.item()
    return loss


def _learning_rate_factor(step: int, steps: int) -> float:
    """Return the multiplier of the highest learning rate at a step: linear warm-up, then cosine decay."""
    warm_up = max(1, round(_WARM_UP_SHARE * steps))
    if step < warm_up:
        return (step + 1) / warm_up
    decay = (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up))) / 2
    return _FINAL_SHARE + (1 - _FINAL_SHARE) * decay


class _State:
    """State of a training: trained parameters, optimizer, losses of past steps, and batches left of this epoch."""

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        self._named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.parameters = list(self._named.values())
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.AdamW(self.parameters, learning_rate, betas=_BETAS, weight_decay=_WEIGHT_DECAY)
        self.order: list[int] = []
        self.losses: list[float] = []

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that is needed to continue."""
        moments = self.optimizer.state_dict()["state"]
        return {
            **{f"weight/{name}": parameter for name, parameter in self._named.items()},
            **{f"moment/{place}/{name}": moment for place in moments for name, moment in moments[place].items()},
            "random": torch.get_rng_state(),
            **({"random of GPU": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {}),
            "order": torch.tensor(self.order, dtype=torch.int64),
            "losses": torch.tensor(self.losses, dtype=torch.float64),
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from stored tensors, if there are any."""
        if not tensors:
            return
        for name, parameter in self._named.items():
            parameter.data.copy_(tensors[f"weight/{name}"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key in tensors:
            if key.startswith("moment/"):
                _, place, name = key.split("/")
                moments.setdefault(int(place), {})[name] = tensors[key]
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        torch.set_rng_state(tensors["random"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(tensors["random of GPU"], self.device)
        self.order, self.losses = tensors["order"].tolist(), tensors["losses"].tolist()


def batched(tokenized: pl.DataFrame, tokens_per_step: int) -> list[Batch]:
    """Return the batches of an epoch, each of samples of similar length with at most `tokens_per_step` tokens.

    Raises:
        SampleError: No sample has a label.
    """
    has_label = pl.col("labels").list.slice(1).list.eval(pl.element() != chat.MASKED).list.any()
    by_length = tokenized.filter(has_label).sort(pl.col("input_ids").list.len(), maintain_order=True)
    rows = list(by_length.select("input_ids", "labels").iter_rows())
    if not rows:
        raise SampleError("training: no sample has an answer to learn")
    batches: list[Batch] = []
    start = 0
    for end in range(1, len(rows) + 1):
        # Rows are sorted by length, so the next row determines the padded width of a batch that includes it.
        if end == len(rows) or (end - start + 1) * len(rows[end][0]) > tokens_per_step:
            batch = rows[start:end]
            width = len(batch[-1][0])
            batches.append(
                Batch(
                    _padded([input_ids for input_ids, _ in batch], width, 0),
                    _padded([labels for _, labels in batch], width, chat.MASKED),
                )
            )
            start = end
    return batches


def _padded(rows: Sequence[list[int]], width: int, filler: int) -> Tensor:
    return torch.tensor([row + [filler] * (width - len(row)) for row in rows])


@contextmanager
def seeded(seed: int, device: torch.device, threads: int | None = None) -> Iterator[None]:
    """Seed PyTorch inside the context, and make it deterministic on a CPU; restore its state on exit.

    Args:
        seed: random seed.
        device: device of the model to train.
        threads: number of threads, which affects the last bits of sums; None: the current one.
    """
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(device.type == "cpu")
        torch.set_num_threads(threads or before)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_num_threads(before)


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces `folder` on success."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as workplace:
        unfinished = Path(workplace) / "new"
        unfinished.mkdir()
        yield unfinished
        if folder.exists():
            folder.rename(Path(workplace) / "old")
        unfinished.rename(folder)
