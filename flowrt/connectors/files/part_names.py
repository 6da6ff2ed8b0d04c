"""The names of a file sink's files: which are its own, and what each says. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class PartNames:
    """Names in the folder of one sink.

    Visible parts are `{prefix}-{epoch}-{subtask}-{sequence}.jsonl`, where `epoch` is the first
    with records in the part: sorted by name, those of a subtask are in the order in which they were
    written. A `FileSource` that reads the folder relies on that.
    Staged files are hidden, `.{prefix}.{operator}.{token}.{generation}.jsonl`: the token stays the
    file's own, the generation is that of the job's attempt that writes it. The owner file says
    whose the prefix is, the lock file that it is being written.
    """

    prefix: str
    operator: str
    extension: str

    def part(self, epoch: int, subtask: int, sequence: int) -> str:
        """Return the name of a visible part."""
        return f"{self.prefix}-{epoch:08d}-{subtask}-{sequence:06d}.{self.extension}"

    def epoch_of(self, name: str) -> int | None:
        """Return the epoch in the name of a part of this prefix; None for any other file."""
        match = re.fullmatch(rf"{self.prefix}-(\d{{8,}})-\d+-\d+\.(?:jsonl|csv)", name)
        return None if match is None else int(match[1])

    def staged(self, token: str, generation: int) -> str:
        """Return the name of a staged file."""
        return f"{self._hidden}.{token}.{generation}.{self.extension}"

    def token_of(self, name: str) -> str | None:
        """Return the token in the name of a staged file of this sink; None for any other file."""
        match = re.fullmatch(rf"{re.escape(self._hidden)}\.([0-9a-f]+)\.\d+\.(?:jsonl|csv)", name)
        return None if match is None else match[1]

    @property
    def owner(self) -> str:
        """The file that says that the prefix belongs to this operator."""
        return f"{self._hidden}.owner"

    @property
    def lock(self) -> str:
        """The file that is locked while a job writes to the prefix."""
        return f".{self.prefix}.lock"

    def is_other_owner(self, name: str) -> bool:
        """Say whether a file gives the prefix to another operator."""
        is_owner = name.startswith(f".{self.prefix}.") and name.endswith(".owner")
        return is_owner and name != self.owner

    @property
    def _hidden(self) -> str:
        return f".{self.prefix}.{quote(self.operator, safe='')}"


def is_prefix(text: str) -> bool:
    """Say whether a text can begin the names of parts: letters, digits, _ and, not first, -."""
    return _PREFIX.fullmatch(text) is not None
