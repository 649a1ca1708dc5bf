"""What a job says, read while it is written."""

import subprocess
import sys

import dagster as dg

from resources.messages import WholeLineMessageReader

TALK = """
import json, os, sys, time
from dagster_pipes import open_dagster_pipes

with open_dagster_pipes() as pipes:
    path = pipes._message_channel._path
    pipes.log.info("before")
    line = json.dumps({"__dagster_pipes_version": "0.1", "method": "log",
                       "params": {"message": "in two pieces", "level": "INFO"}})
    for piece in (line[:40], line[40:] + "\\n"):
        with open(path, "a") as messages:
            messages.write(piece)
        time.sleep(0.3)
    for number in range(300):
        pipes.log.info(f"number {number}")
    with open(path, "a") as messages:
        messages.write(line[:40])
    os.kill(os.getpid(), 9)
"""


def test_every_whole_message_arrives_and_half_of_one_is_dropped(capfd):

    @dg.asset
    def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with dg.open_pipes_session(context, dg.PipesTempFileContextInjector(), WholeLineMessageReader()) as pipes:
            environment = {**pipes.get_bootstrap_env_vars(), "PATH": ""}
            subprocess.run([sys.executable, "-c", TALK], env=environment, check=False)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([table], instance=instance)
        said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    expected = ["before", "in two pieces", *(f"number {number}" for number in range(300))]
    assert [message for message in said if message in set(expected)] == expected
    assert "Traceback" not in capfd.readouterr().err
