"""One of several processes that label the same inputs. In: "3/8" and names. Out: whose input is whose, and a log."""

import contextlib
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Share:
    """The `number`-th of `count` shares, from 1 on. Which input belongs to it depends on its name alone."""

    number: int
    count: int

    @staticmethod
    def parse(text: str) -> "Share":
        """Of "3/8"; ValueError for anything else."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text.strip())
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"--shard is {text!r}; give one of several, such as 3/8: the third of eight")
        return Share(int(match[1]), int(match[2]))

    def holds(self, name: str) -> bool:
        """Whether an input of this name is labelled by this process."""
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
        return int.from_bytes(digest[:8]) % self.count == self.number - 1

    @property
    def log(self) -> str:
        """Name of the file that says what became of each input."""
        return f"predictions-{self.number}-of-{self.count}.jsonl"


class Rows(AbstractContextManager["Rows"]):
    """A log to which a row is added as soon as something is known: a crash costs no row that was written.

    Without a path nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file = path.open("a", encoding="utf-8") if path else None
        if path and self._file and path.read_bytes()[-1:] not in (b"", b"\n"):
            self._file.write("\n")  # the end of a row that was cut

    def add(self, **row: Any) -> None:
        """A row; JSON."""
        if self._file is not None:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()

    def add_missing(self, names: Sequence[str]) -> None:
        """A row for each input that is done and has none: of a process that ended between a file and its row."""
        if self._path is None or not names:
            return
        known = set()
        for line in self._path.read_text("utf-8").splitlines():
            with contextlib.suppress(ValueError, TypeError, KeyError):  # the last line may be cut
                row = json.loads(line)
                known |= {row["name"]} if row["status"] == "ok" else set()
        for name in names:
            if name not in known:
                self.add(name=name, status="ok")

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
