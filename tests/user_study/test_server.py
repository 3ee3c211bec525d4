"""The web service over real sockets: what it stores, what it refuses, and what it tells nobody."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from diffusion_codec.errors import BadInputError, LimitExceededError
from diffusion_codec.user_study import server, store, votes
from diffusion_codec.user_study.design import Sessions, Study, load
from diffusion_codec.user_study.store import ConflictError, Store, UnknownSessionError
from tests.user_study.studies import OURS, RIVAL, make_study


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    make_study(folder, title='</script><script>document.title="hacked"</script>')
    return folder


@contextmanager
def running(folder: Path, **options: Any) -> Iterator[int]:
    """The service in a thread of this process; yields its port."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        config = uvicorn.Config(server.application(folder, **options), log_level="error")
        service = uvicorn.Server(config)
        thread = threading.Thread(target=service.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            service.should_exit = True
            thread.join()


@pytest.fixture
def folder(made: Path) -> Path:
    (made / store.FILE).unlink(missing_ok=True)
    return made


@pytest.fixture
def port(folder: Path) -> Iterator[int]:
    with running(folder) as port:
        yield port


@pytest.fixture
def study(folder: Path) -> Study:
    return load(folder)


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    path: str,
    body: Any = None,
    token: str | None = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    sent = {"Content-Type": "application/json"} if body is not None else {}
    if token is not None:
        sent["Authorization"] = f"Bearer {token}"
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, data, sent | (headers or {}))
        return Answer(connection.getresponse())


def begin(port: int, token: str | None = None) -> str:
    answer = ask(port, "POST", "/api/session", {"consent": True}, token)
    assert answer.status == 201
    return str(answer.json["token"])


def vote(port: int, token: str, trial: Any = 0, choice: Any = "a", seconds: Any = 1.5) -> Answer:
    return ask(port, "POST", "/api/vote", {"trial": trial, "choice": choice, "seconds": seconds}, token)


def exported(folder: Path) -> list[dict[str, Any]]:
    study = load(folder)
    return Store(folder / store.FILE, study).rows(Sessions(study))


def test_a_vote_is_stored_once_however_often_it_is_sent(port: int, folder: Path) -> None:
    token = begin(port)
    assert vote(port, token).status == 201
    assert vote(port, token, seconds=9).status == 200
    (row,) = exported(folder)
    assert (row["choice"], row["seconds"], row["trial"], row["session"]) == ("a", 1.5, 0, 0)


def test_the_first_answer_counts(port: int, folder: Path) -> None:
    token = begin(port)
    vote(port, token, choice="a")
    refused = vote(port, token, choice="b")
    assert refused.status == 409
    assert "first answer counts" in refused.json["error"]
    assert [row["choice"] for row in exported(folder)] == ["a"]


def test_a_session_is_resumed_where_it_was(port: int, study: Study) -> None:
    token = begin(port)
    vote(port, token, 0)
    vote(port, token, 2, "tie")
    state = ask(port, "GET", "/api/session", token=token)
    assert state.json["answered"] == [0, 2]
    assert len(state.json["trials"]) == study.trials
    assert state.headers["cache-control"] == "no-store"


def test_nothing_tells_a_rater_which_codec_made_a_picture_or_what_is_a_test(port: int) -> None:
    token = begin(port)
    said = ask(port, "GET", "/api/session", token=token).body + ask(port, "GET", "/").body
    for word in (OURS, RIVAL, "sentinel", "repeat", "photo0"):
        assert json.dumps(word).encode() not in said


def test_no_session_sees_or_changes_another_ones_votes(port: int, folder: Path) -> None:
    first, second = begin(port), begin(port)
    vote(port, first, 0, "a")
    assert ask(port, "GET", "/api/session", token=second).json["answered"] == []
    vote(port, second, 0, "b")
    assert ask(port, "GET", "/api/session", token=first).json["answered"] == [0]
    assert {(row["session"], row["choice"]) for row in exported(folder)} == {(0, "a"), (1, "b")}
    assert len({row["rater"] for row in exported(folder)}) == 2


def test_one_rater_may_do_two_rounds_and_remains_one_rater(port: int, folder: Path) -> None:
    first = begin(port)
    second = begin(port, first)
    vote(port, first)
    vote(port, second)
    assert [row["session"] for row in exported(folder)] == [0, 1]
    assert len({row["rater"] for row in exported(folder)}) == 1


def test_who_withdraws_leaves_nothing(port: int, folder: Path) -> None:
    stays, leaves = begin(port), begin(port)
    again = begin(port, leaves)
    for token in (stays, leaves, again):
        vote(port, token)
    assert ask(port, "DELETE", "/api/session", token=again).status == 204
    assert [row["session"] for row in exported(folder)] == [0]
    for token in (leaves, again):
        assert vote(port, token, 1).status == 401
        assert ask(port, "GET", "/api/session", token=token).status == 401
    vote(port, begin(port))
    assert len({row["session"] for row in exported(folder)}) == 2
    assert token.encode() not in (folder / store.FILE).read_bytes()


def test_tokens_are_not_stored(port: int, folder: Path) -> None:
    token = begin(port)
    vote(port, token)
    assert token.encode() not in (folder / store.FILE).read_bytes()


@pytest.mark.parametrize(
    "body",
    [
        {"trial": 99, "choice": "a", "seconds": 1},
        {"trial": -1, "choice": "a", "seconds": 1},
        {"trial": 10**30, "choice": "a", "seconds": 1},
        {"trial": True, "choice": "a", "seconds": 1},
        {"trial": "0", "choice": "a", "seconds": 1},
        {"trial": 0, "choice": "c", "seconds": 1},
        {"trial": 0, "choice": "a'; DROP TABLE vote; --", "seconds": 1},
        {"trial": 0, "choice": ["a"], "seconds": 1},
        {"trial": 0, "choice": "a", "seconds": -1},
        {"trial": 0, "choice": "a", "seconds": 10**400},
        {"trial": 0, "choice": "a", "seconds": float("nan")},
        {"trial": 0, "choice": "a", "seconds": float("inf")},
        {"trial": 0, "choice": "a"},
        {"trial": 0, "choice": "a", "seconds": 1, "rater": "somebody"},
        [],
        None,
        "a",
    ],
)
def test_what_is_no_vote_is_refused_and_nothing_is_stored(port: int, folder: Path, body: Any) -> None:
    token = begin(port)
    data = json.dumps(body).encode()
    answer = ask(port, "POST", "/api/vote", data, token, {"Content-Type": "application/json"})
    assert answer.status == 422
    assert answer.json["error"]
    assert exported(folder) == []


@pytest.mark.parametrize("token", ["", "x", "x" * 5000, "' OR 1=1 --", "../../votes"])
def test_unknown_sessions_are_refused(port: int, token: str) -> None:
    begin(port)
    assert vote(port, token).status == 401
    assert ask(port, "GET", "/api/session", token=token).status == 401
    assert ask(port, "DELETE", "/api/session", token=token).status == 401
    assert ask(port, "POST", "/api/session", {"consent": True}, token=token).status == 401


def test_bodies_that_are_too_long_of_another_type_or_no_json_are_refused(port: int) -> None:
    token = begin(port)
    long = json.dumps({"trial": 0, "choice": "a" * server.MAX_BODY, "seconds": 1}).encode()
    assert ask(port, "POST", "/api/vote", long, token).status == 413
    assert ask(port, "POST", "/api/vote", b"{", token).status == 400
    assert ask(port, "POST", "/api/vote", b"[" * 2000, token).status == 400
    assert ask(port, "POST", "/api/vote", b"\xff\xfe", token).status == 400
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(port, "POST", "/api/vote", b"trial=0", token, form).status == 415
    assert ask(port, "POST", "/api/session", {"consent": False}).status == 422
    assert ask(port, "POST", "/api/session", {}).status == 422


@pytest.mark.parametrize(
    "path",
    [
        "/stimuli/../votes.sqlite",
        "/stimuli/..%2fvotes.sqlite",
        "/stimuli/%2e%2e/votes.sqlite",
        "/stimuli/votes.sqlite",
        "/stimuli//etc/passwd",
        "/votes.sqlite",
        "/study.json",
        "/stimuli/" + "0" * 32 + ".webp",
    ],
)
def test_only_the_pictures_of_the_study_are_served(port: int, path: str) -> None:
    assert ask(port, "GET", path).status == 404


def test_every_answer_has_safe_headers_and_names_no_server(port: int, study: Study) -> None:
    picture = f"/stimuli/{study.stimuli[0].file}"
    for method, path in (
        ("GET", "/"),
        ("GET", picture),
        ("GET", "/nothing"),
        ("PUT", "/"),
        ("GET", "/api/session"),
    ):
        answer = ask(port, method, path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http:" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert ask(port, "GET", picture).headers["content-type"] == "image/webp"


def test_other_names_of_the_host_are_refused_unless_allowed(port: int, folder: Path) -> None:
    assert ask(port, "GET", "/", headers={"Host": "evil.example"}).status == 400
    with running(folder, hosts=("study.example",)) as other:
        assert ask(other, "GET", "/", headers={"Host": "study.example"}).status == 200


def test_the_service_survives_what_is_no_http(port: int) -> None:
    for noise in (
        b"\x00" * 100,
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /api/vote HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ):
        with closing(socket.create_connection(("127.0.0.1", port), timeout=5)) as connection:
            connection.sendall(noise)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1000)
    assert ask(port, "GET", "/").status == 200


def test_many_raters_at_once_lose_no_vote(port: int, folder: Path, study: Study) -> None:
    failures: list[int] = []

    def rate() -> None:
        token = begin(port)
        resumed = ask(port, "GET", "/api/session", token=token).status
        if resumed != 200:
            failures.append(resumed)
        for trial in range(study.trials):
            for _ in range(2):  # as a page does that did not hear the answer
                status = vote(port, token, trial, "ab"[trial % 2]).status
                if status not in (200, 201):
                    failures.append(status)

    threads = [threading.Thread(target=rate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    rows = exported(folder)
    assert len(rows) == 8 * study.trials
    assert len({row["rater"] for row in rows}) == 8
    assert sorted({row["session"] for row in rows}) == list(range(8))


def test_the_number_of_sessions_is_limited(folder: Path) -> None:
    with running(folder, max_sessions=2) as port:
        begin(port)
        begin(port)
        refused = ask(port, "POST", "/api/session", {"consent": True})
        assert refused.status == 503
        assert "2 sessions" in refused.json["error"]


def test_votes_of_another_study_are_never_mixed_in(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    kept = Store(tmp_path / store.FILE, study)
    kept.vote(kept.begin()[0], 0, "a", 1.0)
    other = study.model_copy(update={"seed": 5})
    with pytest.raises(BadInputError, match="holds the votes of study"):
        Store(tmp_path / store.FILE, other)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    (tmp_path / store.FILE).write_bytes(b"no database at all" * 100)
    with pytest.raises(BadInputError, match="cannot be used"):
        Store(tmp_path / store.FILE, study)


def test_a_study_without_ties_takes_none(tmp_path: Path) -> None:
    kept = Store(tmp_path / store.FILE, make_study(tmp_path, ties=False))
    token, _ = kept.begin()
    with pytest.raises(BadInputError, match="one of a, b, not 'tie'"):
        kept.vote(token, 0, "tie", 1.0)


def test_the_store_raises_errors_of_its_own(tmp_path: Path) -> None:
    kept = Store(tmp_path / store.FILE, make_study(tmp_path), max_sessions=1)
    token, session = kept.begin()
    kept.vote(token, 1, "a", 1.0)
    assert kept.session(token) == (session, {1: "a"})
    with pytest.raises(UnknownSessionError):
        kept.session("nobody")
    with pytest.raises(ConflictError):
        kept.vote(token, 1, "b", 1.0)
    with pytest.raises(LimitExceededError):
        kept.begin()


def test_the_exported_csv_is_read_back_and_names_the_codecs(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    assert store.export(tmp_path) == ",".join(votes.FIELDS) + "\n"
    kept = Store(tmp_path / store.FILE, study)
    token, session = kept.begin()
    for trial in range(study.trials):
        kept.vote(token, trial, "a", 1.25)
    path = tmp_path / "votes.csv"
    path.write_text(store.export(tmp_path), encoding="utf-8")
    table = votes.read([path])
    assert len(table) == study.trials
    for row, trial in zip(table.itertuples(), Sessions(study)[session.number], strict=True):
        assert (row.kind, row.image) == (trial.kind, trial.original.image)
        assert (row.a, row.b) == (trial.a.condition.codec, trial.b.condition.codec)
        assert row.a_bpp == pytest.approx(trial.a.bpp, abs=1e-6, nan_ok=True) or trial.a.bpp is None
    assert set(table["study"]) == {study.id}
    assert time.strptime(table["answered"][0], "%Y-%m-%dT%H:%M:%SZ")


def test_a_taken_port_is_one_clear_error(folder: Path) -> None:
    with (
        closing(socket.create_server(("127.0.0.1", 0))) as taken,
        pytest.raises(BadInputError, match="another --port"),
    ):
        server.serve(folder, "127.0.0.1", taken.getsockname()[1])
