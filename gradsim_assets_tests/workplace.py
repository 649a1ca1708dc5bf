"""A machine's folders for studies, data and Dagster, and the real command to run them."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import dagster as dg

from gradsim.environment import Environment
from gradsim.study import Study, load_study
from gradsim.tables import Store
from gradsim_assets_tests.studies import study_text
from resources.job_server import JobServer

PROJECT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(sys.executable).parent

# Packages that commands import; importing them takes most of a short command's time. The last one is the tests' own.
IMPORTED = (
    "dagster",
    "dagster_pipes",
    "datasets",
    "jinja2",
    "matplotlib.pyplot",
    "polars",
    "pyarrow.parquet",
    "pydantic_settings",
    "rich.progress",
    "scipy.stats",
    "seaborn",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.olmo.modeling_olmo",
    "typer",
    "gradsim_assets_tests.unsynced",
)


@cache
def _commands() -> JobServer:
    """The process that commands are forked from; it has imported nothing of the product."""
    path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    return JobServer({**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}, IMPORTED)


THINGS = ("knife", "bicycle chain", "garden hose", "wool coat", "clay pot", "oak table", "paper lamp")
VERBS = ("clean", "repair", "store", "choose", "paint")
MODEL = {"reference": {"layers": 1, "hidden_size": 16, "heads": 2, "vocabulary": 300, "steps": 2}}


@dataclass(frozen=True)
class Workplace:
    """Folders of a machine; every process that is started here gets them in its environment."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data root"  # any path is allowed, also with spaces

    @property
    def home(self) -> Path:
        return self.folder / "dagster"

    @property
    def studies(self) -> Path:
        return self.folder / "studies"

    @property
    def variables(self) -> dict[str, str]:
        return {
            "GRADSIM_STUDIES": str(self.studies),
            "GRADSIM_DATA": str(self.data),
            "DAGSTER_HOME": str(self.home),
            "MT_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "COLUMNS": "200",
            "NO_COLOR": "1",
            "PYTHONUNBUFFERED": "1",
        }

    @property
    def environment(self) -> Environment:
        return Environment(data=self.data, studies=self.studies, device="cpu")

    @staticmethod
    def rows(
        number: int, question: str = "How should I {verb} a {thing} at home?", repeat: int = 1
    ) -> list[dict[str, Any]]:
        """Return samples that all differ; `repeat` makes their answers long."""
        made = []
        for position in range(number):
            thing, verb = THINGS[position % len(THINGS)], VERBS[position % len(VERBS)]
            answer = f"To {verb} the {thing}, begin with warm water, then go on for {position + 2} minutes. "
            texts = {"user": question.format(verb=verb, thing=thing), "assistant": (answer * repeat).strip()}
            messages = [{"role": role, "content": text} for role, text in texts.items()]
            made.append({"id": f"s{position:02d}", "messages": messages})
        return made

    def write_rows(self, name: str, samples: list[dict[str, Any]]) -> None:
        self.studies.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(sample) + "\n" for sample in samples)
        (self.studies / name).write_text(lines, encoding="utf-8")

    def write_study(self, name: str = "tiny", **changes: Any) -> None:
        """A study of the samples in `originals.jsonl`; `changes` are keys of its file."""
        samples = len((self.studies / "originals.jsonl").read_text(encoding="utf-8").splitlines())
        definition = {
            "dataset": {"path": "originals.jsonl"},
            "samples": samples,
            "model": MODEL,
            "settings": {"word_dropout": {"method": "word_dropout"}},
            "top_k": 3,
            "projections": [{"kind": "sjlt", "share": 0.1}],
            "partition_size": 7,
        }
        (self.studies / f"{name}.yaml").write_text(study_text({**definition, **changes}), encoding="utf-8")

    def study(self, name: str = "tiny") -> Study:
        return load_study(name, self.environment)

    def store(self, name: str = "tiny") -> Store:
        return Store(self.data, self.study(name))

    def start(
        self, *command: str, output: IO[str] | int = subprocess.PIPE, **variables: str
    ) -> "subprocess.Popen[str]":
        """Start a command of this environment, such as `gradsim`, with this workplace's variables."""
        return subprocess.Popen(
            [str(SCRIPTS / command[0]), *command[1:]],
            env=self.environment_of_process(variables),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def environment_of_process(self, variables: Mapping[str, str]) -> dict[str, str]:
        """This workplace's variables and these, beside those of the tests that mean no machine and no API."""
        cleaned = {name: value for name, value in os.environ.items() if not name.startswith(("MT_", "OPENAI_"))}
        return {**cleaned, **self.variables, **variables}

    def gradsim(self, *arguments: str, fails: bool = False, **variables: str) -> str:
        """What `gradsim` prints, in a process forked from `_commands`; its exit status is checked."""
        with tempfile.TemporaryFile("w+", encoding="utf-8") as file:
            status = _commands().run(
                ["gradsim_assets.cli", *arguments],
                self.environment_of_process(variables),
                streams=(file.fileno(), file.fileno()),
            )
            file.seek(0)
            output = file.read()
        assert (status != 0) == fails, f"exit status {status}\n{output}"
        return output

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            yield instance

    def runs(self) -> list[dg.DagsterRun]:
        """All runs, the first one first."""
        with self.instance() as instance:
            return list(reversed(instance.get_runs()))

    def digests(self) -> dict[str, str]:
        """Every file of the data root -> digest of its bytes."""
        return {
            str(path.relative_to(self.data)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.data.rglob("*"))
            if path.is_file()
        }

    def copy(self, folder: Path) -> "Workplace":
        """The same studies and tables elsewhere, and a Dagster instance that knows nothing of them."""
        other = Workplace(folder)
        for mine, its in ((self.studies, other.studies), (self.data, other.data)):
            if mine.exists():
                shutil.copytree(mine, its)
        return other

    def delete(self, *patterns: str) -> None:
        """Delete files below the data root."""
        for pattern in patterns:
            for path in self.data.glob(pattern):
                path.unlink()
