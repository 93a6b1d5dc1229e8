"""A study in a real PostgreSQL, which dies and comes back in the middle of everything."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from sweeps import PretendSweep, Quiet, study_in
from testbed_lib.postgres import PASSWORD, Postgres, postgres, why_not_here

from kdscale.errors import UserError
from kdscale.records import TrialRecord
from kdscale.search import Study, open_ledger, what_fresh_deletes
from kdscale.search import _served as served
from kdscale.search._database import shared_storage
from kdscale.search._sweep import leased
from kdscale.workflow import load

from .here import numbers

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if why := why_not_here():
        pytest.skip(why)
    with postgres() as running:
        yield running


def team_study(folder: Path, url: str, name: str = "tiny") -> Study:
    return study_in(folder, f"storage.url='{url}'", name=name, rungs={"eta": 2, "first": 1})


@pytest.fixture
def undisturbed(tmp_path: Path) -> dict[str, object]:
    """Returns what a sweep finds that nothing disturbs."""
    study = study_in(tmp_path / "undisturbed", rungs={"eta": 2, "first": 1})
    return dict(numbers(PretendSweep()(study).ledger))


def test_a_sweep_and_the_next_one(
    tmp_path: Path, server: Postgres, undisturbed: dict[str, object]
) -> None:
    study = team_study(tmp_path, server.url, "first")
    assert not PretendSweep(stop_after=1)(study).complete
    outcome = PretendSweep()(study)
    assert outcome.complete
    assert numbers(outcome.ledger) == undisturbed
    assert not PretendSweep()(study).trained
    assert numbers(open_ledger(study, create=False)) == undisturbed
    assert not (study.folder / "study.db").exists()
    assert 'study "first" in the storage (4 trials)' in what_fresh_deletes(study)


class Killer(Quiet):
    """Kills the server at some changes of trials, and starts it again a moment later."""

    def __init__(self, server: Postgres, at: set[int]) -> None:
        self._server = server
        self._at = at
        self._changes = 0
        self.starts: list[threading.Timer] = []

    def on_change(self, trial: TrialRecord) -> None:
        self._changes += 1
        if self._changes in self._at:
            self._server.kill()
            self.starts.append(threading.Timer(1.0, self._server.start))
            self.starts[-1].start()


def test_a_server_that_dies_in_the_middle_of_a_sweep_loses_nothing(
    tmp_path: Path,
    server: Postgres,
    undisturbed: dict[str, object],
    caplog: pytest.LogCaptureFixture,
) -> None:
    study = team_study(tmp_path, server.url, "killed")
    killer = Killer(server, at={3, 9, 14})
    outcome = PretendSweep()(study, killer)
    for start in killer.starts:
        start.join()
    assert len(killer.starts) == 3
    assert numbers(outcome.ledger) == undisturbed
    assert numbers(open_ledger(study, create=False)) == undisturbed
    said = [record.getMessage() for record in caplog.records]
    assert any("does not answer" in text and "loses nothing" in text for text in said)
    assert any("answers again" in text for text in said)
    assert PASSWORD not in "".join(said)


class CuttingLink:
    """A link to the server that is cut when a commit was done, before the client hears of it.

    Once a study is being made: opening a database is not tried again.
    """

    def __init__(self, port: int, every: int) -> None:
        self._port = port
        self._every = every
        self.commits = -1
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._port)) as server:
            other = {client: server, server: client}
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(2**16)
                    if not data:
                        return
                    other[source].sendall(data)
                    if source is client and b"INSERT INTO studies" in data:
                        self.commits = max(0, self.commits)
                    if source is client and b"COMMIT" in data and self.commits >= 0:
                        self.commits += 1
                        if self.commits % self._every == 0:
                            server.recv(2**16)
                            return


def test_a_commit_whose_answer_was_lost_is_done_once(
    tmp_path: Path, server: Postgres, undisturbed: dict[str, object]
) -> None:
    link = CuttingLink(server.port, every=2)  # so each call is made twice
    url = server.url.replace(f":{server.port}", f":{link.port}")
    study = team_study(tmp_path, url, "cut")
    assert numbers(PretendSweep()(study).ledger) == undisturbed
    link.close()
    assert link.commits > 40
    direct = team_study(tmp_path, server.url, "cut")
    assert numbers(open_ledger(direct, create=False)) == undisturbed
    rows = server.query(
        "SELECT count(*) FROM trials JOIN studies USING (study_id) WHERE study_name LIKE 'cut%'"
    )
    assert rows == [(6,)]


def test_first_sweeps_of_a_team_at_once(tmp_path: Path, server: Postgres) -> None:
    server.query("CREATE DATABASE fresh")
    url = server.url.replace("/team", "/fresh")
    problems: list[BaseException] = []

    def begin(name: str) -> None:
        try:
            PretendSweep()(team_study(tmp_path / name, url, name))
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=begin, args=(f"study-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    counts = server.query("SELECT count(*) FROM studies", "fresh")
    assert counts == [(8,)]


def test_one_sweep_holds_a_study_also_through_a_restart(tmp_path: Path, server: Postgres) -> None:
    """Two folders, as on two machines: the lease in the database is what they share."""
    study = team_study(tmp_path / "one", server.url, "held")
    other = team_study(tmp_path / "two", server.url, "held")
    PretendSweep(stop_after=0)(study)
    notes: list[str] = []
    with leased(study, notes.append) as (ledger, _):
        with pytest.raises(UserError, match="one sweep at a time"), leased(other, notes.append):
            pass
        server.restart()
        assert ledger.begin("c000-s0", "s0-1", attempt=True).attempt == 2
        with pytest.raises(UserError, match="one sweep at a time"), leased(other, notes.append):
            pass
    assert PretendSweep()(other).complete


def test_a_database_that_stays_away_ends_the_sweep_in_words(
    tmp_path: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = team_study(tmp_path, server.url, "away")
    PretendSweep(stop_after=1)(study)
    ledger = open_ledger(study, create=True)
    monkeypatch.setattr(served, "PATIENCE_SECONDS", 0.5)
    server.kill()
    try:
        with pytest.raises(UserError, match=r"did not answer for .* the same command") as caught:
            ledger.save_teacher("0" * 64)
        with pytest.raises(UserError, match="must be a database to use") as refused:
            open_ledger(study, create=True)
    finally:
        server.start()
    for error in (caught, refused):
        assert PASSWORD not in str(error.value)
        said = ("Connection refused", "closed the connection unexpectedly")
        assert any(why in str(error.value) for why in said)


def test_the_folder_of_a_study_keeps_no_password(
    tmp_path: Path, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = team_study(tmp_path, server.url, "kept")
    PretendSweep(stop_after=1)(study)
    for path in study.folder.rglob("*"):
        assert path.is_dir() or PASSWORD.encode() not in path.read_bytes()
    for table in ("study_user_attributes", "trial_user_attributes"):
        assert PASSWORD not in repr(server.query(f"SELECT value_json FROM {table}"))
    found = load(study.folder, [])
    assert found.storage.url == server.plain_url
    with pytest.raises(UserError, match=r"storage\.url: must be a database to use, but: .*passw"):
        open_ledger(found, create=True)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    assert PretendSweep()(found).complete


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("s3cret", "wr0ng"), "password authentication failed"),
        (("/team", "/nowhere"), 'database "nowhere" does not exist'),
        (("postgresql:", "postgresql+pg8000:"), r"must have its driver installed.*kdscale\[postg"),
        (("postgresql:", "postgrr:"), "Can't load plugin"),
    ],
)
def test_a_database_that_cannot_be_used(
    server: Postgres, change: tuple[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said) as error:
        shared_storage(server.url.replace(*change))
    assert PASSWORD not in str(error.value)
    assert "wr0ng" not in str(error.value)
