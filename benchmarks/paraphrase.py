"""Measure requests to an API against the lower bound given by their number and the delay of answers.

The API is a server in its own process on this machine, which answers after a fixed delay.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from measuring import Row, emit, table

from gradsim.environment import project_root
from gradsim.study.settings import Paraphrase
from gradsim.text_generation.api import Paraphraser
from gradsim.text_generation.request import Request

sys.path.insert(0, str(project_root() / "scripts"))

from chat_server import Behaviour, chat_server

# Characters of a typical text in LIMA.
_TYPICAL_LENGTH = 1400

_COLUMNS = {
    "requests": "requests",
    "in_flight": "in flight",
    "delay": "delay (s)",
    "floor": "floor (s)",
    "seconds": "time (s)",
    "ratio": "ratio",
    "processor_ms": "CPU (ms per request)",
}


def main() -> None:
    """Request texts of LIMA's typical length, several rounds, each with an empty journal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1976)
    parser.add_argument("--in-flight", type=int, nargs="+", default=[8, 64, 256])
    parser.add_argument("--delay", type=float, default=0.2, help="seconds until the server answers")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        with chat_server(place / "server", Behaviour(seconds=arguments.delay)) as server:
            rows = [
                _measured(place / str(in_flight), server.base_url, in_flight, arguments)
                for in_flight in arguments.in_flight
            ]
    print(table(rows, _COLUMNS))


def _measured(place: Path, base_url: str, in_flight: int, arguments: argparse.Namespace) -> Row:
    requests = [Request(f"{n} " + "some words " * (_TYPICAL_LENGTH // 11), 42) for n in range(arguments.requests)]
    seconds, processor = [], []
    for number in range(arguments.rounds):
        paraphraser = Paraphraser(
            Paraphrase(concurrency=in_flight), place / str(number), base_url=base_url, api_key="none"
        )
        start, start_processor = time.perf_counter(), time.process_time()
        answers = paraphraser.ask(requests)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - start_processor)
        assert len(answers) == len(requests)
    floor = -(-arguments.requests // in_flight) * arguments.delay
    took = statistics.median(seconds)
    return emit(
        {
            "requests": arguments.requests,
            "in_flight": in_flight,
            "delay": arguments.delay,
            "floor": round(floor, 2),
            "seconds": round(took, 2),
            "ratio": round(took / floor, 3),
            "processor_ms": round(1000 * statistics.median(processor) / arguments.requests, 2),
            "rounds": [round(each, 2) for each in seconds],
        }
    )


if __name__ == "__main__":
    main()
