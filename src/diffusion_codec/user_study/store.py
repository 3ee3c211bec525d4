"""The votes of a running study in one SQLite file: one transaction a vote, the first answer to a trial counts.

A session is known by a random token, of which only the hash is kept; its rater appears in the votes under a random
pseudonym. No name, address or browser is stored. The journal is a rollback journal, so that all votes lie in the
one file as soon as they are acknowledged.
"""

import hashlib
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from diffusion_codec.errors import BadInputError, LimitExceededError
from diffusion_codec.user_study import votes
from diffusion_codec.user_study.design import Sessions, Study

FILE = "votes.sqlite"
MAX_SECONDS = 86_400.0
_SCHEMA = """
CREATE TABLE study (id TEXT NOT NULL);
CREATE TABLE session (
  number INTEGER PRIMARY KEY, rater TEXT NOT NULL, token_hash TEXT NOT NULL UNIQUE
);
CREATE TABLE vote (
  session INTEGER NOT NULL REFERENCES session (number) ON DELETE CASCADE,
  trial INTEGER NOT NULL,
  choice TEXT NOT NULL CHECK (choice IN ('a', 'b', 'tie')),
  seconds REAL NOT NULL,
  answered TEXT NOT NULL,
  PRIMARY KEY (session, trial)
);
"""


class UnknownSessionError(BadInputError):
    """No session has this token."""


class ConflictError(BadInputError):
    """The trial was answered differently before; the first answer counts."""


@dataclass(frozen=True)
class Session:
    """One rater's session: the number decides the trials."""

    rater: str
    number: int


class Store:
    """Opens or makes the file. Raises BadInputError if it holds the votes of another study."""

    def __init__(self, path: Path, study: Study, max_sessions: int = 1000) -> None:
        self.path, self.study, self.max_sessions = path, study, max_sessions
        with self._transaction() as database:
            if not database.execute("SELECT name FROM sqlite_master WHERE name = 'study'").fetchone():
                for statement in _SCHEMA.split(";"):
                    database.execute(statement)
                database.execute("INSERT INTO study VALUES (?)", (study.id,))
            (found,) = database.execute("SELECT id FROM study").fetchone()
        if found != study.id:
            raise BadInputError(
                f"{path} holds the votes of study {found}, not of {study.id}: export them, then choose another folder"
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self.path, timeout=10, isolation_level=None)) as database:
                database.execute("PRAGMA foreign_keys = ON")
                database.execute("PRAGMA synchronous = FULL")
                database.execute("BEGIN IMMEDIATE")
                try:
                    yield database
                except BaseException:
                    database.execute("ROLLBACK")
                    raise
                database.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise BadInputError(f"{self.path} cannot be used: {error}") from error

    def begin(self, earlier: str | None = None) -> tuple[str, Session]:
        """A new session and its token, which is told only once.

        With the token of an `earlier` session the rater is the same one, otherwise a new one. Raises
        LimitExceededError, UnknownSessionError.
        """
        token, rater = secrets.token_urlsafe(24), f"r-{secrets.token_hex(6)}"
        with self._transaction() as database:
            if earlier is not None:
                rater = self._find(database, earlier).rater
            count, last = database.execute("SELECT count(*), max(number) FROM session").fetchone()
            if count >= self.max_sessions:
                raise LimitExceededError(f"the study has its {self.max_sessions} sessions; no more are begun")
            number = 0 if last is None else last + 1
            database.execute("INSERT INTO session VALUES (?, ?, ?)", (number, rater, _hash(token)))
        return token, Session(rater, number)

    def session(self, token: str) -> tuple[Session, dict[int, str]]:
        """The session of a token and its choices by trial. Raises UnknownSessionError."""
        with self._transaction() as database:
            found = self._find(database, token)
            rows = database.execute(
                "SELECT trial, choice FROM vote WHERE session = ?", (found.number,)
            ).fetchall()
        return found, dict(rows)

    def vote(self, token: str, trial: int, choice: str, seconds: float) -> bool:
        """Store one choice durably; False if the very same one was there already.

        Raises UnknownSessionError, ConflictError, BadInputError for what is no vote of this study.
        """
        if not 0 <= trial < self.study.trials:
            raise BadInputError(f"a session has the trials 0 to {self.study.trials - 1}, not {trial}")
        if choice not in votes.CHOICES or (choice == "tie" and not self.study.ties):
            allowed = votes.CHOICES if self.study.ties else votes.CHOICES[:2]
            raise BadInputError(f"a choice is one of {', '.join(allowed)}, not {choice!r}")
        if not 0 <= seconds <= MAX_SECONDS:
            raise BadInputError(f"seconds go from 0 to {MAX_SECONDS:g}")
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        with self._transaction() as database:
            session = self._find(database, token).number
            before = database.execute(
                "SELECT choice FROM vote WHERE session = ? AND trial = ?", (session, trial)
            ).fetchone()
            if before is None:
                row = (session, trial, choice, round(seconds, 3), now)
                database.execute("INSERT INTO vote VALUES (?, ?, ?, ?, ?)", row)
            elif before[0] != choice:
                raise ConflictError(
                    f"trial {trial} was answered {before[0]!r} before; the first answer counts"
                )
        return before is None

    def withdraw(self, token: str) -> None:
        """Delete all sessions of this session's rater, with all votes. Raises UnknownSessionError."""
        with self._transaction() as database:
            rater = self._find(database, token).rater
            database.execute("DELETE FROM session WHERE rater = ?", (rater,))

    def rows(self, sessions: Sessions) -> list[dict[str, object]]:
        """All votes with the fields of `votes.FIELDS`, in order of session and trial."""
        with self._transaction() as database:
            found = database.execute(
                "SELECT rater, session, trial, choice, seconds, answered FROM vote "
                "JOIN session ON session = number ORDER BY session, trial"
            ).fetchall()
        return [
            votes.key(self.study.id, sessions[number][trial])
            | {"rater": rater, "session": number, "choice": choice, "seconds": seconds, "answered": answered}
            for rater, number, trial, choice, seconds, answered in found
        ]

    @staticmethod
    def _find(database: sqlite3.Connection, token: str) -> Session:
        row = database.execute(
            "SELECT rater, number FROM session WHERE token_hash = ?", (_hash(token),)
        ).fetchone()
        if row is None:
            raise UnknownSessionError("this session is unknown or was withdrawn; begin a new one")
        return Session(*row)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def export(folder: Path) -> str:
    """The votes of the study in a folder as csv text; only the header where nobody has voted yet."""
    from diffusion_codec.user_study.design import load

    study = load(folder)
    if not (folder / FILE).is_file():
        return votes.to_csv([])
    return votes.to_csv(Store(folder / FILE, study).rows(Sessions(study)))
