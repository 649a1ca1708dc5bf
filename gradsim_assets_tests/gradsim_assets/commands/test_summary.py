"""What the command line says of plans, results and states."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

from gradsim.environment import Environment
from gradsim.tables import SCHEMAS, Store
from gradsim_assets.commands.session import Session
from gradsim_assets.commands.status import print_states, print_status
from gradsim_assets.commands.summary import print_launches, print_results
from gradsim_assets.launch.targets import Launch
from gradsim_assets.terminal import console
from gradsim_assets_tests.studies import two_partitions

IDS = list("abcd")
KEYS = ("0000-0001", "0002-0003")
Said = Callable[[], list[str]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Said:
    """The lines printed since it was last asked, without blank ones and margins."""
    monkeypatch.setattr(console, "width", 200)
    return lambda: [line.strip() for line in capsys.readouterr().out.splitlines() if line.strip()]


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """A study of one setting in two partitions; all of its tables are there, most without rows."""
    before = dict(os.environ)
    os.environ["DAGSTER_HOME"] = str(tmp_path / "home")
    session = Session(two_partitions(tmp_path), Environment(data=tmp_path / "data root"))
    fill(session.store)
    yield session
    os.environ.clear()
    os.environ.update(before)


def fill(store: Store) -> None:
    known: dict[str, dict[str, list]] = {
        "samples": {"id": IDS},
        "accuracy": {
            "group": ["all", "forced", "all"],
            "method": ["full_gradient", "full_gradient", "bm25"],
            "accuracy": [0.75, 0.5, 0.25],
            "low": [0.301, 0.1, 0.046],
            "high": [0.954, 0.9, 0.699],
        },
        "controls": {"control": ["chance"], "accuracy": [0.2]},
    }
    for node in store.lineage:
        for partition in store.partitions(node.key):
            if node.key.name == "report":
                store.write_report("<p>found</p>")
                continue
            columns = known.get(node.key.name, {})
            empty = SCHEMAS[node.key.name].empty()
            rows = empty.clear(len(next(iter(columns.values()), ())))
            store.write(node.key, rows.with_columns(pl.Series(name, columns[name]) for name in columns), partition)


def row(lines: list[str], table: str) -> list[str]:
    """The cells of a table's line."""
    return next(line for line in lines if line.split()[0] == table).split()


def joined(lines: list[str]) -> str:
    """Without blanks: titles are wrapped where their tables are narrow."""
    return "".join("".join(lines).split())


class TestLaunches:
    def test_nothing(self, said: Said) -> None:
        print_launches([])
        assert said() == ["nothing to do: everything requested is fresh"]

    def test_runs_and_their_tables(self, session: Session, said: Said) -> None:
        key = session.store.lineage.key
        tables = (key("queries", "dropped"), key("candidates", "dropped"))
        print_launches([Launch((key("samples"),)), Launch(tables, KEYS), Launch(tables[:1], KEYS[1:])])
        assert said() == [
            "run 1 of 3  mine: samples",
            "mine/samples",
            "run 2 of 3  mine/dropped: queries, candidates (0000-0001 to 0002-0003)",
            "mine/dropped/queries",
            "mine/dropped/candidates",
            "run 3 of 3  mine/dropped: queries (0002-0003)",
            "mine/dropped/queries",
        ]


class TestStatus:
    def test_everything_is_done(self, session: Session, said: Said) -> None:
        print_status(session)
        files = sum(len(session.store.partitions(node.key)) for node in session.store.lineage)
        assert [line.split() for line in said() if "─" not in line] == [
            ["mine", "in", *str(session.store.root).split()],
            ["tables", "and", "partitions", "done", "failed", "missing", "stale"],
            ["shared", "tables", "6", "·", "·", "·"],
            ["dropped", str(files - 7), "·", "·", "·"],
            ["report", "1", "·", "·", "·"],
            ["dropped:", "nothing", "was", "compared"],
        ]

    def test_each_table(self, session: Session, said: Said) -> None:
        print_status(session, tables=True)
        lines = said()
        assert row(lines, "table") == ["table", "done", "failed", "missing", "stale"]
        assert row(lines, "samples") == ["samples", "1", "·", "·", "·"]
        assert row(lines, "dropped") == ["dropped"]
        assert row(lines, "dot_products") == ["dot_products", "2", "·", "·", "·"]
        tables = [line.split()[0] for line in lines if line.endswith("·")]
        # Those of a setting stand below its name.
        below: dict[str | None, int] = {"dropped": 2}
        assert tables == ["/".join(n.key.parts[below.get(n.key.setting, 1) :]) for n in session.store.lineage]

    def test_missing_damaged_and_stale(self, session: Session, said: Said) -> None:
        damage(session.store)
        print_status(session, tables=True)
        lines = said()
        assert row(lines, "dot_products")[1:] == ["1", "·", "1", "·"]
        assert row(lines, "query_self")[1:] == ["1", "1", "·", "·"]
        assert row(lines, "results/dot_products")[1:] == ["·", "·", "·", "1"]
        assert row(lines, "results/query_self")[1:] == ["·", "·", "·", "1"]
        assert row(lines, "results/original_self")[1:] == ["1", "·", "·", "·"]
        # Not only what the missing partition enters directly.
        assert row(lines, "analysis/layer_means")[1:] == ["·", "·", "·", "1"]
        assert row(lines, "report")[1:] == ["·", "·", "·", "1"]
        assert row(lines, "analysis/accuracy")[1:] == ["1", "·", "·", "·"]
        assert lines[-1] == "next: gradsim run mine"

    def test_states_as_json(self, session: Session, capsys: pytest.CaptureFixture[str]) -> None:
        damage(session.store)
        print_states(session)
        found = json.loads(capsys.readouterr().out)
        states = {(each["table"], each["partition"]): each["state"] for each in found["tables"]}
        keys = {(str(node.key), each) for node in session.store.lineage for each in session.store.partitions(node.key)}
        assert states.keys() == keys
        assert states["mine/dropped/dot_products", KEYS[0]] == "missing"
        assert states["mine/dropped/dot_products", KEYS[1]] == "done"
        assert states["mine/dropped/query_self", KEYS[1]] == "corrupt"
        assert states["mine/dropped/analysis/layer_means", None] == "stale"
        assert {each["setting"] for each in found["tables"]} == {None, "dropped"}
        # Nothing was audited, and the tables below have changed since.
        assert found["audits"] == {"dropped": {"passed": False, "stale": True, "numbers": 0, "worst": None}}
        assert found["next"] == "gradsim run mine"

    @pytest.mark.parametrize("tables", [False, True], ids=["settings", "tables"])
    def test_no_number_is_cut_at_80_columns(
        self, session: Session, said: Said, monkeypatch: pytest.MonkeyPatch, tables: bool
    ) -> None:
        names = ["a" * 100, *"bcd"]
        monkeypatch.setattr(console, "width", 80)
        print_status(changed(session, names, samples=4000), tables=tables)
        lines = [line.split() for line in said()]
        if tables:
            assert [line[-2:] for line in lines].count(["2,000", "·"]) == 4 * 11
        else:
            missing = [line[-2:] for line in lines if line[-1] == "·"]
            assert missing == [["6", "·"], *[["22,029", "·"]] * 4, ["1", "·"]]


def damage(store: Store) -> None:
    """A missing and a damaged partition."""
    store.path(store.lineage.key("dot_products", "dropped"), KEYS[0]).unlink()
    store.path(store.lineage.key("query_self", "dropped"), KEYS[1]).write_bytes(b"half")


def changed(session: Session, settings: list[str], **changes: int) -> Session:
    """Another study with these settings, all alike; nothing is computed."""
    (method,) = session.study.settings.values()
    update = {"name": "other", "settings": dict.fromkeys(settings, method), **changes}
    return Session(session.study.model_copy(update=update), session.environment)


class TestResults:
    def test_headline_numbers_and_the_report(self, session: Session, said: Said) -> None:
        print_results(session)
        lines = said()
        assert joined(lines).startswith(joined(["sources found (%) dropped"]))
        assert lines[-1] == f"report: {session.store.path(session.store.lineage.key('report'))}"
        assert any(line.split() == ["full", "gradient", "75.0", "(30–95)"] for line in lines)
        assert any(line.split() == ["BM25", "25.0", "(5–70)"] for line in lines)
        assert any(line.split() == ["chance", "20.0"] for line in lines)
        assert not any("50.0" in line for line in lines)  # of a group, not of all queries

    def test_what_is_stale_is_not_shown(self, session: Session, said: Said) -> None:
        key = session.store.lineage.key("candidates", "dropped", "results")
        session.store.path(key).unlink()
        print_results(session)
        assert said() == [
            f"report (stale): {session.store.path(session.store.lineage.key('report'))}",
            "to bring stale results up to date: gradsim run mine",
        ]

    def test_what_lacks_a_later_partition_is_marked(self, session: Session, said: Said) -> None:
        store = session.store
        store.path(store.lineage.key("candidates", "dropped"), KEYS[0]).unlink()
        print_results(session)
        lines = said()
        assert lines[-2] == f"report (stale): {store.path(store.lineage.key('report'))}"
        assert ["sources", "found", "(%)", "(stale)"] in [line.split() for line in lines]
        assert any(line.split() == ["full", "gradient", "75.0", "(30–95)"] for line in lines)
        assert any(line.startswith("dropped (stale): ") for line in lines)
        assert lines[-1] == "to bring stale results up to date: gradsim run mine"

    def test_no_number_is_cut_at_80_columns(
        self, session: Session, said: Said, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        session = changed(session, ["paraphrased_by_a_large_model", *"abc"])
        fill(session.store)
        monkeypatch.setattr(console, "width", 80)
        print_results(session)
        lines = said()
        text = "\n".join(lines)
        for cell in ("75.0 (30–95)", "25.0 (5–70)", "20.0"):
            assert text.count(cell) == 4
        assert text.count("sources found (%)") == 1 + any(line.split()[-1] == "model" for line in lines)
