"""Commands on the login node through an ssh that fails as the real one does: waited for, or refused in clear words."""

import time

import pytest

from gradsim.errors import ClusterError
from resources.slurm import connection as module
from resources.slurm.connection import Connection, UnreachableError

# Runs the command here, as the login node would.
ANSWER = 'exec bash -c "${@: -1}"'

CLOSED = "kex_exchange_identification: read: Connection reset by peer"
TIMED_OUT = "ssh: connect to host login.example.org port 22: Connection timed out"
DOWN = f"{CLOSED}\n{TIMED_OUT}"
UNREACHABLE = f"someone@login.example.org cannot be reached ({TIMED_OUT}); retrying until it can"


@pytest.fixture
def calls(tmp_path):
    """How often ssh was called, and what for."""
    path = tmp_path / "calls"
    path.touch()
    return lambda: path.read_text().splitlines()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def connect(stand_in, site_of, tmp_path, monkeypatch, calls, said):
    """A connection through an ssh that first fails so many times, and does something else afterwards."""
    monkeypatch.setattr(module, "_PAUSES", (0.01, 0.02))

    def connect(*, fails=0, text=DOWN, then=ANSWER, **variables):
        stand_in(
            "ssh",
            f"""
[[ $* == *'-O stop'* ]] && {{ echo stop >> {tmp_path}/calls; exit 0; }}
echo call >> {tmp_path}/calls
if [ "$(grep -c call {tmp_path}/calls)" -le {fails} ]; then cat > /dev/null; cat <<'END' >&2
{text}
END
exit 255; fi
{then}""",
        )
        return Connection(site_of(**variables), said.append)

    return connect


def test_a_command_is_answered_as_by_a_clean_shell(connect):
    answer = connect().run("""printf '%s\\n' "it's $0" *'$'; cat; echo oh >&2; exit 7""", b"read \xff")
    assert (answer.status, answer.errors) == (7, "oh")
    assert answer.output == b"it's bash\n*$\nread \xff"
    assert answer.text == "it's bash\n*$\nread \N{REPLACEMENT CHARACTER}"


def test_what_a_shell_says_to_whoever_logs_in_is_no_answer(connect):
    connection = connect(then=f"echo Welcome to the cluster; echo; {ANSWER}")
    assert connection.run("echo 7").output == b"7\n"


@pytest.mark.parametrize("shell", ["bash", "sh"])
def test_the_users_shell_need_not_read_the_command(connect, shell):
    text = 'it\'s a "text", with $dollars, `ticks`,\n!lines! and \\ signs'
    connection = connect(then=f'exec {shell} -c "${{@: -1}}"')
    assert connection.run(f"cat <<'END'\n{text}\nEND").text == text


def test_a_login_that_has_worked_before_and_is_refused_now_is_waited_for(connect, calls, tmp_path):
    connection = connect()
    connection.run("true")
    connect(fails=3, text="Permission denied (publickey).")
    assert connection.patiently("echo again").text == "again"
    assert len(calls()) == 4


def test_what_fails_a_few_times_is_tried_again_and_said_once(connect, calls, said):
    connection = connect(fails=4)
    assert connection.patiently("echo here").text == "here"
    assert calls() == ["call"] * 5
    assert said == [UNREACHABLE, "someone@login.example.org is back after 0 s"]


def test_nothing_is_said_of_what_works_at_once(connect, said):
    connection = connect()
    assert connection.patiently("exit 3").status == 3
    assert said == []


def test_it_gives_up_when_the_time_is_over(connect, calls, said):
    connection = connect(fails=10_000)
    began = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        connection.patiently("true", seconds=0.3)
    assert time.monotonic() - began >= 0.3
    assert len(calls()) > 2
    assert str(caught.value) == (
        f"someone@login.example.org: cannot be reached ({TIMED_OUT}); are SLURM_SSH_HOST and _PORT right?"
    )
    assert said == [UNREACHABLE]


def test_an_ssh_that_fails_without_a_word(connect):
    with pytest.raises(UnreachableError, match=r"^the connection was closed$"):
        connect(fails=1, text="").run("true")


DENIED = "someone@login.example.org: Permission denied (publickey,password)."

# What ssh prints -> the beginning of what is said.
REFUSED = {
    DENIED: "the login was refused; SLURM_SSH_USER and SLURM_SSH_KEY must be a user",
    "@@@@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@@@@\n"
    "Host key verification failed.": "its host key differs from the known one; ask the cluster's operators",
    "No ED25519 host key is known for login.example.org and you have requested strict checking.\n"
    "Host key verification failed.": "its host key is not known; compare it with the one that the cluster's",
    'unix_listener: path "/home/someone/.ssh/x" too long for Unix domain socket': (
        "the path of the shared ssh connection's socket is too long; set DAGSTER_SLURM_SSH_CONTROL_DIR to a short"
    ),
    "command-line: line 0: Bad configuration option: nonsense": "ssh rejects its options; correct SLURM_SSH_OPTS",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_does_not_mend_itself_is_refused_at_once(connect, calls, text):
    connection = connect(fails=10_000, text=text)
    with pytest.raises(ClusterError) as caught:
        connection.patiently("true")
    assert str(caught.value).startswith(f"someone@login.example.org: {REFUSED[text]}")
    assert "\n" not in str(caught.value)
    assert calls() == ["call"]


def test_an_unknown_host_is_told_how_to_be_made_known(connect, tmp_path):
    known_hosts = str(tmp_path / "known hosts")
    connection = connect(
        fails=1, text="Host key verification failed.", SLURM_SSH_PORT="2222", SLURM_SSH_KNOWN_HOSTS_FILE=known_hosts
    )
    with pytest.raises(ClusterError) as caught:
        connection.run("true")
    assert str(caught.value).endswith(f"then add it: ssh-keyscan -p 2222 login.example.org >> {known_hosts}")


@pytest.mark.parametrize(
    "text",
    ['Load key "/keys/mine": error in libcrypto', 'Load key "/keys/mine": invalid format', "UNPROTECTED PRIVATE KEY"],
)
def test_a_key_that_is_none_is_said_to_be_none(connect, text):
    with pytest.raises(ClusterError, match="SLURM_SSH_KEY cannot be used as a private key"):
        connect(fails=1, text=f"{text}\n{DENIED}").run("true")


def test_a_command_that_hangs_is_ended_with_its_connection(connect, calls):
    connection = connect(then="exec sleep 60")
    with pytest.raises(UnreachableError, match=r"^no answer within 0 s$"):
        connection.run("true", timeout=0.3)
    assert calls() == ["call", "stop"]


def test_every_try_reads_and_writes_from_the_beginning(connect, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"all of it")
    connection = connect(fails=2, then=f"echo more; {ANSWER}")
    with source.open("rb") as reading, target.open("wb") as writing:
        writing.write(b"what an earlier try left of something longer")
        answer = connection.patiently("cat", reading, target=writing)
    assert (target.read_bytes(), answer.output) == (b"more\nall of it", b"")


def test_the_first_contact_asks_for_the_home_folder(connect, monkeypatch):
    monkeypatch.setenv("HOME", "/home/some one")
    connection = connect(fails=1)
    site = connection.at_home(seconds=10)
    assert str(site.base) == "/home/some one/gradsim"
    assert connection.site == site


def test_a_machine_without_ssh(site_of, monkeypatch, tmp_path):
    connection = Connection(site_of(), print)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"^ssh is not installed here; install OpenSSH's client$"):
        connection.patiently("true")
