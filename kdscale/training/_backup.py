"""The copy of a study folder on a remote filesystem, from which any node can go on.

A checkpoint's name there holds its epoch, so one that comes late from a node that was cut off never
replaces a newer one, and the newest is found by listing.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from kdscale.errors import UserError
from kdscale.files import Mirror, Remote, patiently
from kdscale.training._checkpoint import epoch_of
from kdscale.training._student import checkpoint_path, student_path

_PATIENCE_SECONDS = 60.0
_NUMBERED = re.compile(r"(?:.*/)?checkpoint-(\d+)\.pt")


class Backup:
    """Carries files of a study folder to a remote folder in the background, and back.

    Args:
        remote: The study's folder on the remote filesystem.
        folder: The study folder, absolute.
    """

    def __init__(self, remote: Remote, folder: Path) -> None:
        self.remote = remote
        self._folder = folder
        self._mirror = Mirror(str(remote))

    @property
    def problem(self) -> str:
        """Why the remote filesystem is away; empty while it is there."""
        return self._mirror.problem

    def save_trial(self, folder: Path, epoch: int) -> None:
        """Begins to upload a trial's files.

        Args:
            folder: The trial's folder.
            epoch: The epoch of its checkpoint.
        """
        self._mirror.push(self._name(folder), partial(self._upload_trial, folder, epoch))

    def save(self, path: Path) -> None:
        """Begins to upload a file of the study folder, unless that has been done."""
        if not _uploaded(path):
            self._mirror.push(self._name(path), partial(self._upload, path))

    def settle(self, seconds: float | None = None) -> bool:
        """Waits until all is uploaded or the remote is away, and returns whether one is so."""
        return self._mirror.settle(seconds) or bool(self.problem)

    def close(self, seconds: float) -> tuple[str, ...]:
        """Ends uploading, and returns the files and trials that are not uploaded.

        Args:
            seconds: The longest to wait for them.
        """
        return self._mirror.close(seconds)

    def catch_up(self) -> None:
        """Begins to upload what another process has left in the study folder."""
        for path in self._folder.glob("trials/*/checkpoint.pt"):
            student = student_path(path.parent)
            if not _uploaded(path) or (student.exists() and not _uploaded(student)):
                try:
                    self.save_trial(path.parent, epoch_of(path))
                except UserError:
                    continue  # damaged: its trial says so when it is trained
        for student in self._folder.glob("trials/*/student.pt"):
            if not checkpoint_path(student.parent).exists():
                self.save(student)

    def find_checkpoint(self, folder: Path, epoch: int | None) -> None:
        """Fetches a trial's newest checkpoint, unless the one that is here will do.

        Args:
            folder: The trial's folder.
            epoch: Epochs that the study has been told of; None where that is not known.
        """
        path = checkpoint_path(folder)
        here = epoch_of(path) if path.exists() else 0
        if epoch is not None and here >= epoch:
            return
        try:
            patiently(partial(self._fetch_checkpoint, folder, here), _PATIENCE_SECONDS)
        except OSError as error:
            warnings.warn(
                f"{self._name(folder)}: no checkpoint could be fetched from {self.remote} "
                f"({error}): training goes on from epoch {here}, and repeats what came after",
                RuntimeWarning,
                stacklevel=2,
            )

    def fetch(self, path: Path, seconds: float = _PATIENCE_SECONDS) -> bool:
        """Fetches a file of the study folder that is not here, and returns whether it is here now.

        Args:
            path: The file.
            seconds: The longest to wait while the remote is away.

        Raises:
            UserError: If the remote cannot be reached.
        """
        if path.exists():
            return True
        try:
            patiently(partial(self._fetch, self._name(path), path), seconds)
        except OSError as error:
            raise UserError(f"{self.remote}: must have {path.name}, but: {error}") from error
        return path.exists()

    def make_room(self, keep: Sequence[Path]) -> None:
        """Deletes the trials' files that are uploaded from this disk.

        Args:
            keep: Folders of trials whose files stay.
        """
        for path in self._folder.glob("trials/*/*.pt"):
            if path.parent not in keep and _uploaded(path):
                path.unlink(missing_ok=True)

    def delete(self, path: Path) -> None:
        """Begins to delete a file of the study folder that has been deleted here."""
        self._mirror.push(self._name(path), partial(self._delete, path))

    def _name(self, path: Path) -> str:
        return path.absolute().relative_to(self._folder).as_posix()

    def _upload_trial(self, folder: Path, epoch: int) -> None:
        student, path, name = student_path(folder), checkpoint_path(folder), self._name(folder)
        if student.exists() and not _uploaded(student):
            self._upload(student)
        self._upload(path, f"{name}/checkpoint-{epoch:06d}.pt")
        for older, number in self._checkpoints(folder).items():
            if number < epoch:
                self._delete_there(older)

    def _upload(self, path: Path, name: str = "") -> None:
        try:
            state = _state(path)
            self.remote.put(path, name or self._name(path))
        except FileNotFoundError:
            return  # deleted meanwhile
        _mark(path).write_text(state)

    def _fetch_checkpoint(self, folder: Path, here: int) -> None:
        found = {number: name for name, number in self._checkpoints(folder).items()}
        if found and max(found) > here:
            self._fetch(found[max(found)], checkpoint_path(folder))

    def _fetch(self, name: str, path: Path) -> None:
        if self.remote.fetch(name, path):
            _mark(path).write_text(_state(path))

    def _checkpoints(self, folder: Path) -> dict[str, int]:
        """Returns the trial's checkpoints on the remote, by name, and their epochs."""
        found = {name: _NUMBERED.fullmatch(name) for name in self.remote.sizes(self._name(folder))}
        return {name: int(match[1]) for name, match in found.items() if match}

    def _delete(self, path: Path) -> None:
        if path.exists():
            return  # written anew
        _mark(path).unlink(missing_ok=True)
        if path == checkpoint_path(path.parent):
            for name in self._checkpoints(path.parent):
                self._delete_there(name)
        else:
            self._delete_there(self._name(path))

    def _delete_there(self, name: str) -> None:
        self.remote.delete(name)
        self.remote.delete_drafts(name)


def _mark(path: Path) -> Path:
    """Returns the file that says which state of a file has been uploaded."""
    return path.with_name(f".{path.name}.uploaded")


def _state(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_mtime_ns} {stat.st_size}"


def _uploaded(path: Path) -> bool:
    try:
        return _mark(path).read_text() == _state(path)
    except FileNotFoundError:
        return False
