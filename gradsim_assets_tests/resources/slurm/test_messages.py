"""A job's messages, handed over by whoever looks at the job: each once, wherever a look cuts them."""

import json
import logging
import subprocess
import sys

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.messages import FedMessageReader

LOG = logging.getLogger(__name__)


class Heard(list, dg.PipesMessageHandler):
    """What a reader hands over."""

    def handle_message(self, message):
        self.append(message)


def lines_of(messages):
    return [json.dumps(message).encode() + b"\n" for message in messages]


def feed(content, looks, reader):
    """Look at a growing file as often as is said, then at all of it; whether any look said so."""
    return [reader.feed(content[reader.read_bytes : end]) for end in [*sorted(looks), len(content)]]


def heard(content, looks=()):
    """What is handed over of a file."""
    reader, handler = FedMessageReader("/there", LOG), Heard()
    with reader.read_messages(handler):
        feed(content, looks, reader)
    return list(handler)


MESSAGES = st.lists(
    st.fixed_dictionaries({"method": st.text(), "params": st.dictionaries(st.text(), st.integers(), max_size=2)}),
    max_size=8,
)
LOOKS = st.lists(st.integers(0, 400), max_size=12)


@given(MESSAGES, LOOKS)
def test_every_message_is_handed_over_once_wherever_looks_cut(messages, looks):
    assert heard(b"".join(lines_of(messages)), looks) == messages


@given(MESSAGES, LOOKS)
def test_a_look_tells_whether_there_was_a_whole_line(messages, looks):
    content, reader = b"".join(lines_of(messages)), FedMessageReader("/there", LOG)
    handler = Heard()
    with reader.read_messages(handler):
        for end in [*sorted(looks), len(content)]:
            before = len(handler)
            assert reader.feed(content[reader.read_bytes : end]) == (len(handler) > before)
    assert reader.read_bytes == len(content)


@given(MESSAGES, MESSAGES.filter(bool), st.integers(1, 30), LOOKS)
def test_of_a_killed_job_s_half_line_no_more_is_lost_than_the_line_it_spoils(first, second, cut, looks):
    """The next life of a job goes on in the same line."""
    half = b'{"method": "log", "params": {"message": "x"}}'[:cut]
    content = b"".join([*lines_of(first), half, *lines_of(second)])
    assert heard(content, looks) == [*first, *second[1:]]


@given(MESSAGES, st.integers(1, 44))
def test_half_a_line_at_the_end_is_no_message(messages, cut):
    half = b'{"method": "log", "params": {"message": "x"}}'[:cut]
    assert heard(b"".join(lines_of(messages)) + half) == messages


@pytest.mark.parametrize("spoilt", [b"\0" * 7, b"\xff\xfe", b'{"method": "\xc3'], ids=["zeros", "no text", "half"])
def test_what_a_file_system_spoils_is_skipped(spoilt):
    """A node that dies may leave zeros where its last bytes were to be."""
    whole = lines_of([{"method": "opened"}, {"method": "log"}, {"method": "closed"}])
    assert heard(whole[0] + spoilt + whole[1] + whole[2]) == [{"method": "opened"}, {"method": "closed"}]


TALK = """
from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    for number in range(50):
        pipes.log.info(f"number {number}: Grüße")
"""


def test_dagster_s_own_messages_arrive_in_the_runs_log(tmp_path):
    path = tmp_path / "messages.jsonl"

    @dg.asset
    def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        reader = FedMessageReader(str(path), context.log)
        with dg.open_pipes_session(context, dg.PipesEnvContextInjector(), reader) as pipes:
            environment = {**pipes.get_bootstrap_env_vars(), "PATH": ""}
            subprocess.run([sys.executable, "-c", TALK], env=environment, check=True)
            content = path.read_bytes()
            assert any(feed(content, range(0, len(content), 70), reader))
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([table], instance=instance)
        said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    expected = [f"number {number}: Grüße" for number in range(50)]
    assert [text for text in said if text.startswith("number ")] == expected
