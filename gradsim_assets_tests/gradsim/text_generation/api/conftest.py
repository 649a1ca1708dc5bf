"""A server that says what a test wants, and a client of it."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tenacity import wait_fixed

from gradsim.study.settings import Paraphrase
from gradsim.text_generation.api import Paraphraser
from gradsim_assets_tests.gradsim.text_generation.api.talk import KEY, Server


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trouble is followed by a new try almost at once; how long it usually takes is tested on its own."""
    monkeypatch.setattr("gradsim.text_generation.api.conversation._PAUSE", wait_fixed(0.01))


MakeParaphraser = Callable[..., Paraphraser]


@pytest.fixture
def paraphraser(server: Server, tmp_path: Path) -> MakeParaphraser:
    """Makes a client of the server: `attempts` and `base_url` are the client's, others are keys of the setting."""

    def make(attempts: int = 3, base_url: str | None = None, name: str = "study/setting", **keys: Any) -> Paraphraser:
        return Paraphraser(
            Paraphrase(**keys),
            tmp_path / "journals",
            base_url=base_url or server.base_url,
            api_key=KEY,
            name=name,
            attempts=attempts,
        )

    return make
