"""Measure a tiny model's answers to LIMA's prompts: batched, one at a time, and by transformers alone.

    python benchmarks/generation.py [--model tiny|lima] [--rounds 5]

Needs the reference data (GRADSIM_GOLDEN). `tiny` is the default model of `train_reference_model`, `lima` the model of
`benchmarks/lima.py`; either is trained first, in a temporary folder.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from measuring import PeakMemory, Row, emit, in_turn, machine, now, table
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from gradsim.chat import render
from gradsim.environment import project_root
from gradsim.models import load_model, load_tokenizer, train_reference_model
from gradsim.study import ModelConfiguration
from gradsim.text_generation.local import GeneratedAnswer, Sampling, generate_answers

SEED = 42
CPU = torch.device("cpu")
LIMA = {"layers": 4, "hidden_size": 160, "heads": 5, "positions": 8192, "steps": 150, "tokens_per_step": 4096}
Prompts = Sequence[list[int]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=["tiny", "lima"], default="tiny")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--prompts", type=int, default=32, help="number of prompts that are also answered one at a time (32)"
    )
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--only", choices=["compared", "all"], help="run only this half")
    arguments = parser.parse_args()
    golden = Path(os.environ.get("GRADSIM_GOLDEN", str(project_root() / "../shared/golden"))).resolve()
    if not (golden / "lima/original.parquet").is_file():
        print(f"{golden}: reference data not found; set GRADSIM_GOLDEN to their folder", file=sys.stderr)
        return 1
    samples = pl.read_parquet(golden / "lima/original.parquet")
    with tempfile.TemporaryDirectory(prefix="gradsim-generation-") as folder:
        generation = Generation.of(samples, golden, arguments.model, Path(folder) / "model", arguments.new_tokens)
    if arguments.only != "all":
        compare(generation, arguments.prompts, arguments.rounds)
    if arguments.only != "compared":
        answer_all(generation)
    return 0


class Generation:
    """A model, all prompts, and methods that answer some of them."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Prompts, new_tokens: int
    ) -> None:
        self.model, self.tokenizer, self.prompts, self.new_tokens = model, tokenizer, prompts, new_tokens

    @classmethod
    def of(cls, samples: pl.DataFrame, golden: Path, name: str, folder: Path, new_tokens: int) -> "Generation":
        """Train the model, and tokenize the first message of every sample with the cue for an answer."""
        settings: dict[str, Any] = {**LIMA, "tokenizer": golden / "tokenizer"} if name == "lima" else {}
        train_reference_model(samples, folder, on_long_sample="exclude", **settings)
        tokenizer = load_tokenizer(str(folder))
        prompts = [
            list(tokenizer(render([message], "", cue=True), add_special_tokens=False, verbose=False)["input_ids"])
            for message in samples["messages"].list.first()
        ]
        return cls(load_model(ModelConfiguration(str(folder), device="cpu")), tokenizer, prompts, new_tokens)

    def batched(self, prompts: Prompts, tokens_per_batch: int = 16_384, **keywords: Any) -> list[GeneratedAnswer]:
        """Return gradsim's answers; a batch too small for two rows runs one row at a time."""
        return generate_answers(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.new_tokens,
            tokens_per_batch=tokens_per_batch,
            **keywords,
        )

    def plain(self, prompts: Prompts) -> list[str]:
        """Return the answers of transformers' `generate`, one prompt at a time."""
        end = self.tokenizer.eos_token_id
        generate: Any = self.model.generate
        configuration = GenerationConfig(
            do_sample=False, max_new_tokens=self.new_tokens, eos_token_id=end, pad_token_id=end
        )
        texts = []
        for prompt in prompts:
            ids = torch.tensor([prompt])
            with torch.inference_mode():  # as gradsim does; 10 % faster than without
                output = generate(ids, attention_mask=torch.ones_like(ids), generation_config=configuration)
            new = output[0, len(prompt) :].tolist()
            texts.append(str(self.tokenizer.decode(new[: new.index(end)] if end in new else new)))
        return texts


def compare(generation: Generation, count: int, rounds: int) -> None:
    """Compare the methods on some prompts, in turn."""
    room = generation.model.config.max_position_embeddings - generation.new_tokens
    fitting = [prompt for prompt in generation.prompts if len(prompt) <= room]
    prompts = random.Random(SEED).sample(fitting, count)
    answers = generation.batched(prompts)
    differing = sum(answer.text != text for answer, text in zip(answers, generation.plain(prompts), strict=True))
    ways = {
        "transformers' generate, one at a time": lambda: generation.plain(prompts),
        "generate_answers, one row per batch": lambda: generation.batched(prompts, 1),
    }
    rows = []
    for name, way in ways.items():
        slow, fast = in_turn(way, lambda: generation.batched(prompts), rounds)
        ratios = [one / other for one, other in zip(slow, fast, strict=True)]
        row = {
            "against": name,
            "prompts": count,
            "seconds": statistics.median(slow),
            "batched": statistics.median(fast),
            "ratio": statistics.median(ratios),
            "ratios": ", ".join(f"{ratio:.2f}" for ratio in ratios),
            "differing": differing,
        }
        rows.append(emit({**machine(CPU), **row}))
    floor = emit(floor_of(generation, prompts, [answer.new_tokens for answer in answers]))
    print(
        table(
            rows,
            {
                "against": "against",
                "prompts": "prompts",
                "seconds": "s",
                "batched": "batched (s)",
                "ratio": "ratio",
                "ratios": "ratio per round",
                "differing": "differing answers",
            },
        ),
        table([floor], {key: key for key in floor}),
        sep="\n\n",
    )


def floor_of(generation: Generation, prompts: Prompts, new: Sequence[int]) -> Row:
    """Return a lower bound: products of all tokens without padding, and keys and values read once per token."""
    configuration = generation.model.config
    weights = sum(parameter.numel() for parameter in generation.model.parameters())  # tied: includes the head
    hidden, layers = configuration.hidden_size, configuration.num_hidden_layers
    attended = sum(
        len(prompt) ** 2 // 2 + count * len(prompt) + count**2 // 2 for prompt, count in zip(prompts, new, strict=True)
    )
    operations = 2 * weights * (sum(map(len, prompts)) + sum(new)) + 4 * hidden * layers * attended
    size = 4 * 2 * hidden * layers
    read = size * sum(count * len(prompt) + count**2 // 2 for prompt, count in zip(prompts, new, strict=True))
    read += 4 * weights * max(new)
    return {
        "operations (G)": operations / 1e9,
        "bytes (GB)": read / 1e9,
        "G operations/s": _fastest_product() / 1e9,
        "GB/s": _fastest_reading() / 1e9,
        "floor (s)": operations / _fastest_product() + read / _fastest_reading(),
    }


def _fastest_product(size: int = 2048) -> float:
    """Return operations per second of one large matrix product."""
    one = torch.randn(size, size)
    return 2 * size**3 / min(_seconds(one.mm, one) for _ in range(10))


def _fastest_reading() -> float:
    """Return bytes per second of a sum over data larger than the caches."""
    numbers = torch.randn(1 << 26)
    return 4 * numbers.numel() / min(_seconds(torch.sum, numbers) for _ in range(10))


def _seconds(function: Any, argument: torch.Tensor) -> float:
    start = now(CPU)
    function(argument)
    return now(CPU) - start


def answer_all(generation: Generation) -> None:
    """Answer all prompts, greedily and by sampling (some sampled answers end early)."""
    ways = {"greedy": None, "sampled, temperature 1": Sampling(1.0, range(len(generation.prompts)))}
    rows = []
    for name, sampling in ways.items():
        memory = PeakMemory(CPU)
        start = now(CPU)
        answers = generation.batched(generation.prompts, sampling=sampling)
        seconds, tokens = now(CPU) - start, sum(answer.new_tokens for answer in answers)
        row = {
            "decoding": name,
            "prompts": len(answers),
            "too long": sum(answer.prompt_too_long for answer in answers),
            "ended": sum(answer.finished for answer in answers) / len(answers),
            "new tokens": tokens,
            "seconds": seconds,
            "tokens/s": tokens / seconds,
            "grown (MB)": memory.grown / 1e6,
        }
        rows.append(emit({**machine(CPU), **row}))
    print(table(rows, {key: key for key in rows[0] if key not in machine(CPU)}))


if __name__ == "__main__":
    sys.exit(main())
