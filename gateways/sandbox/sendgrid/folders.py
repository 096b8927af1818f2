"""Accepted mails as files that people open: a folder each, with .eml, .html and attachments."""

import re
from pathlib import Path

from gateways.sandbox.sendgrid.letters import Letter, message_of
from gateways.sandbox.sendgrid.store import KeptMail, Store

MAX_NAME_CHARACTERS = 80


class Folders:
    """The folders under one directory, named by number and subject so that they sort and read."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)

    def path(self, number: int, subject: str) -> Path:
        """Where the mail of this number is."""
        return self._directory / f"{number:06}-{_tame(subject.lower()) or 'mail'}"

    def write(self, number: int, letter: Letter, *, message_id: str, accepted_at: float) -> None:
        """Write a mail's files. ``mail.eml`` comes last: where it is, they all are."""
        folder = self.path(number, letter.subject)
        folder.mkdir(exist_ok=True)
        if letter.html is not None:
            (folder / "mail.html").write_text(letter.html, encoding="utf-8")
        for position, enclosure in enumerate(letter.enclosures, start=1):
            name = _tame(enclosure.filename) or "attachment"
            if (folder / name).exists() or name in ("mail.eml", "mail.html"):
                name = f"{position}-{name}"
            (folder / name).write_bytes(enclosure.content)
        message = message_of(letter, message_id=message_id, accepted_at=accepted_at)
        unfinished = folder / "mail.eml.part"
        unfinished.write_bytes(message.as_bytes())
        unfinished.replace(folder / "mail.eml")

    def write_missing(self, store: Store) -> None:
        """Write the mails that were accepted just before the server was killed."""
        for mail in store.mails():
            if not (self.path(mail.number, mail.subject) / "mail.eml").exists():
                self._write_kept(store, mail)

    def _write_kept(self, store: Store, mail: KeptMail) -> None:
        self.write(
            mail.number,
            store.letter(mail),
            message_id=mail.message_id,
            accepted_at=mail.accepted_at,
        )


def _tame(name: str) -> str:
    """A file name without folders, hidden files, or anything a shell minds."""
    tame = re.sub(r"[^\w.]+", "-", name).strip("-.")
    stem, dot, ending = tame.rpartition(".")
    if dot and len(ending) <= 10:
        return stem[: MAX_NAME_CHARACTERS - len(ending) - 1].rstrip("-.") + dot + ending
    return tame[:MAX_NAME_CHARACTERS].rstrip("-.")
