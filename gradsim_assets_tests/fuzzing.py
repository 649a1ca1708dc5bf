"""Fuzzers of everything that is read: `make fuzz`, or `python -m gradsim_assets_tests.fuzzing --seconds 60`.

An input is made by damaging a valid one at random. Reading it has to work or to raise a `GradsimError` of one line,
within ten seconds, without starting a process, unpickling a class, or writing outside the folder of the fuzzer.
An input depends only on the seed, its kind and its number, which a failure names.
"""

import argparse
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, suppress
from pathlib import Path
from typing import Any

import polars as pl
import yaml

from gradsim import models
from gradsim.chat import tokenize
from gradsim.dataset.samples import SAMPLES_SCHEMA, load_original_file
from gradsim.environment import _load_dotenv, project_root
from gradsim.errors import GradsimError
from gradsim.study import FileDataset, ModelConfiguration, load_study
from gradsim.tables import State
from gradsim.text_generation.journal import open_journal, read_journal
from gradsim_assets_tests.gradsim.published.tiny import LISTS, Layout, tables_of
from gradsim_assets_tests.gradsim.tables.conftest import stored_places, write_all

SECONDS = 10.0

Fuzzer = Callable[[random.Random], object]

_NASTY_BYTES = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xc3", b"\r", b"\n", b"\t", b'"', b"'", b"\\", b"{", b"[", b"}", b"]"),
    *(b"&a", b"*a", b"!!python/object:os.system", b"<<: ", b"---", b"%", b"${HOME}", b"{{", b"{%", b": ", b"- ", b"#"),
    *(b"null", b"true", b"NaN", b"Infinity", b"1e999", b"-1", b"0", b"9" * 30, b"9" * 5000, b"[" * 5000, b"a" * 70_000),
)
_NASTY_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1, 0.5, 1e999, float("nan"), 2**31, 2**63, 10**30, "", " ", "\0", "\ud800", "a" * 5000, "NaN"),
    *("../../etc/passwd", "/etc/passwd", "{{ 1 }}", "\u202e", [], {}, [[]], [None], {"": None}, {"a": {"b": []}}),
)


def damaged_bytes(content: bytes, choose: random.Random) -> bytes:
    """Return bytes with one to three changes: flipped, cut, repeated, moved or inserted ones."""
    data = bytearray(content)
    for _ in range(choose.randint(1, 3)):
        start, end = sorted(choose.randrange(len(data) + 1) for _ in range(2))
        match choose.randrange(6):
            case 0 if data:
                place = choose.randrange(len(data))
                data[place] ^= 1 << choose.randrange(8)
            case 1:
                del data[start:end]
            case 2:
                data[start:start] = data[start : min(end, start + 2000)]
            case 3:
                del data[start:]
            case 4:
                data[start:start] = choose.choice(_NASTY_BYTES)
            case _:
                data[start : min(end, start + 8)] = choose.choice(_NASTY_BYTES)
    return bytes(data)


def damaged_value(value: Any, choose: random.Random) -> Any:
    """Return a JSON value with one part replaced, removed, renamed or repeated."""
    if not isinstance(value, dict | list) or not value or choose.random() < 0.2:
        return choose.choice(_NASTY_VALUES)
    places = list(value) if isinstance(value, dict) else range(len(value))
    place, change = choose.choice(places), choose.randrange(8)
    copy: Any = value.copy()
    if change == 0:
        del copy[place]
    elif change > 1:
        copy[place] = damaged_value(value[place], choose)
    elif isinstance(copy, dict):
        copy[str(choose.choice(_NASTY_VALUES))] = value[place]
    else:
        copy.append(value[place])
    return copy


def damaged_json(path: Path, choose: random.Random) -> None:
    """Damage a JSON file, half of the times so that it is still JSON."""
    content = path.read_bytes()
    if choose.random() < 0.5:
        path.write_bytes(damaged_bytes(content, choose))
    else:
        value = json.loads(content)
        for _ in range(choose.randint(1, 2)):
            value = damaged_value(value, choose)
        path.write_text(json.dumps(value), encoding="utf-8", errors="surrogatepass")


# -- fuzzers: each prepares a folder and returns what reads one damaged input ----------------------


def study_files(folder: Path) -> Fuzzer:
    (folder / "originals.jsonl").write_text("{}")
    files = sorted((project_root() / "studies").glob("*.yaml"))

    def fuzz(choose: random.Random) -> None:
        content = choose.choice(files).read_bytes()
        path = folder / "study.yaml"
        if choose.random() < 0.5:
            path.write_bytes(damaged_bytes(content, choose))
        else:
            path.write_text(yaml.safe_dump(damaged_value(yaml.safe_load(content), choose)), encoding="utf-8")
        load_study(path)

    return fuzz


def dotenv_files(folder: Path) -> Fuzzer:
    content = (project_root() / ".env.example").read_bytes()

    def fuzz(choose: random.Random) -> None:
        path, before = folder / ".env", dict(os.environ)
        path.write_bytes(damaged_bytes(content, choose))
        try:
            _load_dotenv(path)
        finally:
            os.environ.clear()
            os.environ.update(before)

    return fuzz


def datasets(folder: Path) -> Fuzzer:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because, é."}]
    conversations = [{"id": f"s{place}", "messages": turns} for place in range(3)]
    shared = [
        {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]},
        {"instruction": "Explain.", "input": "", "output": "So."},
        {"prompt": "Why?", "completion": "So."},
        {"text": "All of it."},
        {"input_ids": [1, 2, 3], "labels": [-100, 2, 3]},
    ]
    kinds = [conversations, *([row] * 3 for row in shared)]

    def fuzz(choose: random.Random) -> None:
        rows: Any = choose.choice(kinds)
        if choose.random() < 0.5:
            rows = damaged_value(rows, choose)
        suffix = choose.choice((".jsonl", ".json", ".parquet", ".csv", ".jsonl.gz"))
        path = folder / f"data{suffix}"
        path.unlink(missing_ok=True)
        lines = rows if isinstance(rows, list) else [rows]
        content = "".join(json.dumps(row) + "\n" for row in lines).encode("utf-8", "surrogatepass")
        if suffix == ".json":
            content = json.dumps(rows).encode("utf-8", "surrogatepass")
        if suffix in (".parquet", ".csv"):
            try:
                frame = pl.DataFrame(lines, strict=False)
                frame.write_parquet(path) if suffix == ".parquet" else frame.write_csv(path)
                content = path.read_bytes()
            except Exception:  # noqa: BLE001 - rows that no such file can hold
                content = b"PAR1"
        path.write_bytes(damaged_bytes(content, choose) if choose.random() < 0.5 else content)
        load_original_file(path, FileDataset(path=path))

    return fuzz


def published_results(folder: Path) -> Fuzzer:
    layout = Layout(folder / "published", {"paraphrased": tables_of(0, LISTS)})
    layout.write()
    files = sorted(layout.root.rglob("*.json"))

    def fuzz(choose: random.Random) -> None:
        path = choose.choice(files)
        good = path.read_bytes()
        try:
            damaged_json(path, choose)
            layout.read()
        finally:
            path.write_bytes(good)

    return fuzz


def stored_tables(folder: Path) -> Fuzzer:
    """A value that is read is the value that was written."""
    store = write_all(folder)
    places = stored_places(store)
    rows = {place: store.read(place[0], [place[1]]) for place in places if place[0].name != "report"}

    def fuzz(choose: random.Random) -> None:
        key, partition = choose.choice(places)
        path, other = store.path(key, partition), store.path(*choose.choice(places))
        good = path.read_bytes()
        content = other.read_bytes() if choose.random() < 0.2 else damaged_bytes(good, choose)
        path.write_bytes(content)
        try:
            if (state := store.state(key, partition)) is State.FRESH and content != good:
                raise AssertionError(f"{path} is fresh")
            if (key, partition) in rows and not store.read(key, [partition]).equals(rows[key, partition]):
                raise AssertionError(f"{path} is {state}, and its rows differ")
        finally:
            path.write_bytes(good)

    return fuzz


def model_folders(folder: Path) -> Fuzzer:
    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is an example."}]
    samples = pl.DataFrame([{"id": "s0", "messages": turns}], schema=SAMPLES_SCHEMA)
    models.train_reference_model(
        samples, folder / "good", layers=1, hidden_size=16, heads=2, vocabulary=300, positions=64, steps=1
    )
    files = sorted(path.name for path in (folder / "good").iterdir())

    def fuzz(choose: random.Random) -> None:
        model = folder / "model"
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(folder / "good", model)
        path = model / choose.choice(files)
        if path.suffix == ".json":
            damaged_json(path, choose)
        else:
            path.write_bytes(damaged_bytes(path.read_bytes(), choose))
        with suppress(GradsimError):
            models.load_tokenizer(str(model))
        models.load_model(ModelConfiguration(str(model), device="cpu"))

    return fuzz


def conversations(folder: Path) -> Fuzzer:
    turns = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "It is an example."}]
    samples = pl.DataFrame([{"id": "s0", "messages": turns}], schema=SAMPLES_SCHEMA)
    sizes: Mapping[str, Any] = {"layers": 1, "hidden_size": 16, "heads": 2, "vocabulary": 300, "positions": 64}
    trained = models.train_reference_model(samples, folder / "model", steps=1, **sizes)
    tokenizer = models.load_tokenizer(str(trained.folder))
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant'] %}"
        "{{ raise_exception('no such role') }}{% endif %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}\n"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )

    def fuzz(choose: random.Random) -> None:
        messages = [dict(turn) for turn in turns * choose.randint(1, 3)]
        for _ in range(choose.randint(0, 2)):
            message = choose.choice(messages)
            message["content"] = damaged_bytes(message["content"].encode(), choose).decode("utf-8", "replace")
        if choose.random() < 0.3:
            choose.choice(messages)["role"] = choose.choice(("system", "tool", "", "user", "a" * 5000))
        changed = damaged_bytes(template.encode(), choose).decode("utf-8", "replace")
        tokenizer.chat_template = changed if choose.random() < 0.7 else template
        loss_on: Any = choose.choice(("last_answer", "all_answers", "everything"))
        tokenize(messages, tokenizer, template="model", loss_on=loss_on)

    return fuzz


def journals(folder: Path) -> Fuzzer:
    """An answer that is read is the answer that was written."""
    path = folder / "journal.jsonl"
    with open_journal(path) as journal:
        for number in range(5):
            journal.append(f"key {number}", {"text": f"answer é {number}"})
        written = dict(journal.entries)
    good = path.read_bytes()
    first, _, _ = good.partition(b"\n")

    def fuzz(choose: random.Random) -> None:
        damaged = damaged_bytes(good, choose)
        path.write_bytes(damaged)
        found = read_journal(path)
        if not damaged.startswith(first):  # without its checksum, the file would be one of gradsim 0.2
            return
        for key, entry in found.items():
            if key in written and entry["text"] != written[key]["text"]:
                raise AssertionError(f"{key}: {entry['text']!r}")

    return fuzz


FUZZERS: Mapping[str, Callable[[Path], Fuzzer]] = {
    "study files": study_files,
    ".env files": dotenv_files,
    "datasets": datasets,
    "published results": published_results,
    "stored tables": stored_tables,
    "model folders": model_folders,
    "conversations": conversations,
    "journals": journals,
}


# -- running -----------------------------------------------------------------------------------


class Watch:
    """Watch for started processes, unpickled classes and files written outside a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.seen: list[str] = []
        self.active = False
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active:
            return
        if event in ("subprocess.Popen", "os.system", "os.exec", "os.fork", "pickle.find_class"):
            self.seen.append(f"{event} {arguments}")
        writes = event == "open" and set(str(arguments[1] or "")) & set("wax+")
        inside = (self.folder, os.devnull)
        if writes and not str(arguments[0]).startswith(inside) and "__pycache__" not in str(arguments[0]):
            self.seen.append(f"writes {arguments[0]}")


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Interrupt after some seconds, in a way that no parser's error handling catches."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt("hangs")

    before = signal.signal(signal.SIGALRM, stop)
    left = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *left)
        signal.signal(signal.SIGALRM, before)


def fault_of(fuzz: Fuzzer, choose: random.Random, watch: Watch) -> str | None:
    """Read one input and return what is wrong with how it was read, if anything."""
    watch.seen.clear()
    watch.active = True
    try:
        with alarm(SECONDS), redirect_stderr(io.StringIO()):
            fuzz(choose)
    except GradsimError as error:
        if len(str(error).splitlines()) != 1:
            return f"not one line: {error}"
    except BaseException:  # noqa: BLE001 - panics and interrupts, too
        return traceback.format_exc()
    finally:
        watch.active = False
    return "; ".join(watch.seen) or None


def main() -> int:
    """Fuzz for a time, and print every fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="time for all kinds together (60)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=FUZZERS, help="only this kind")
    parser.add_argument("--number", type=int, help="only this input")
    options = parser.parse_args()
    kinds = [options.kind] if options.kind else list(FUZZERS)
    counts, faults = Counter[str](), 0
    with tempfile.TemporaryDirectory(prefix="gradsim-fuzz-") as temporary:
        watch = Watch(Path(temporary))
        for kind in kinds:
            folder = Path(temporary) / kind
            folder.mkdir()
            fuzz = FUZZERS[kind](folder)
            end = time.monotonic() + options.seconds / len(kinds)
            number = options.number or 0
            while time.monotonic() < end:
                fault = fault_of(fuzz, random.Random(f"{options.seed} {kind} {number}"), watch)
                if fault:
                    faults += 1
                    print(f"--kind '{kind}' --seed {options.seed} --number {number}\n{fault}\n", flush=True)
                counts[kind] += 1
                number += 1
                if options.number is not None:
                    break
            print(f"{kind}: {counts[kind]:,} inputs", flush=True)
    print(f"{counts.total():,} inputs, {faults} faults")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
