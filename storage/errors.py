"""Errors about what users supply (files, folders, settings), and about the store itself."""

from pathlib import Path
from typing import Self


class InputError(ValueError):
    """Something supplied from outside cannot be used; `code` is its short reason, e.g. "truncated"."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        # Worker processes send errors back by pickle, which cannot pass keyword arguments.
        return _restore, (str(self), self.code)

    @classmethod
    def mismatch(cls, file: Path | str, key: str, *, found: object, wanted: object, code: str) -> Self:
        """Name the file, the key in it, what was found there and what was wanted."""
        return cls(f"{file}: {key}: found {found}, wanted {wanted}", code=code)


class StoreError(Exception):
    """The store cannot be read or written: a full disk, a damaged record, somebody else at work in it.

    No ValueError, so that it is never taken for something wrong with the input at hand.
    """


def one_line(error: Exception) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split())


def _restore(message: str, code: str) -> InputError:
    return InputError(message, code=code)
