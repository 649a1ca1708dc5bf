"""Compare every installed peer with autograd on a tiny model: `python benchmarks/peers/check.py` (a minute)."""

import argparse
import random
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from disagreement import autograd_reference, disagreement
from registry import PEERS, PeerError, run, write_input
from transformers import OlmoConfig, OlmoForCausalLM

VOCABULARY = 64
QUERY_LENGTHS = (20, 5, 12)
ORIGINAL_LENGTHS = (7, 19, 11)


class TinySample(NamedTuple):
    id: str
    input_ids: list[int]
    labels: list[int]


def main() -> int:
    """Print each peer's errors; return 0 if all installed peers answered."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--batch", type=int, help="samples per batch; by default the adapter's choice, so that lengths mix"
    )
    batch = parser.parse_args().batch
    model = tiny_model()
    numbers = random.Random(0)
    queries = [sample(f"query {length}", length, numbers) for length in QUERY_LENGTHS]
    originals = [sample(f"original {length}", length, numbers) for length in ORIGINAL_LENGTHS]
    reference = autograd_reference(model, queries, originals)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        write_input(Path(folder), model, queries, originals)
        for peer in PEERS:
            if peer.environment_python() is None:
                print(f"{peer.name}: not installed")
                continue
            try:
                result = run(peer, Path(folder), repeat=1, threads=1, batch=batch)
            except PeerError as error:
                print(error, file=sys.stderr)
                failed = True
                continue
            found = disagreement(result, reference)
            print(f"{peer.name} {peer.version}: {len(found.exact)} layers agree to {found.rounding:.1e}")
            for layer, error_of_layer in found.wrong.items():
                print(f"    {layer}: error {error_of_layer:.1e}")
            for layer in found.lacks:
                print(f"    {layer}: missing")
    return int(failed)


def tiny_model() -> OlmoForCausalLM:
    torch.manual_seed(0)
    configuration = OlmoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    model = OlmoForCausalLM(configuration)
    model.eval()
    return model


def sample(name: str, length: int, numbers: random.Random) -> TinySample:
    """Return a sample of random tokens; the first third is the prompt."""
    tokens = [numbers.randrange(2, VOCABULARY) for _ in range(length)]
    prompt = length // 3
    return TinySample(name, tokens, [-100] * prompt + tokens[prompt:])


if __name__ == "__main__":
    sys.exit(main())
