"""What is submitted: a text, and the files that go with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kdscale.errors import UserError

_NAMED = 5


@dataclass(frozen=True)
class Upload:
    """One file that is sent along.

    Attributes:
        path: Where it lies, relative to the working directory where it can be.
        size_bytes: Its size.
    """

    path: Path
    size_bytes: int


@dataclass(frozen=True)
class Artefact:
    """What a target gets.

    Attributes:
        text: The script, manifest or command, as it could be saved and used by hand.
        uploads: The files that are sent along.
        limit_bytes: How much the target takes of them; None where nothing is sent.
        notes: What the user should know before it runs.
    """

    text: str
    uploads: tuple[Upload, ...] = ()
    limit_bytes: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def size_bytes(self) -> int:
        """The uploads' size."""
        return sum(upload.size_bytes for upload in self.uploads)

    def comments(self) -> Iterator[str]:
        """Yields notes and uploads as comments: valid below the text, in YAML as in a script."""
        for note in self.notes:
            yield f"# {note}"
        if self.limit_bytes is None:
            yield "# nothing is uploaded"
            return
        count = len(self.uploads)
        yield f"# uploads {count} file(s), {size_text(self.size_bytes)} of at most " + size_text(
            self.limit_bytes
        )
        for upload in sorted(self.uploads, key=lambda upload: upload.path):
            yield f"# {size_text(upload.size_bytes):>9}  {upload.path}"

    def check_size(self) -> None:
        """Holds that the target takes the uploads.

        Raises:
            UserError: If they are too large; it names the largest.
        """
        if self.limit_bytes is None or self.size_bytes < self.limit_bytes:
            return
        raise UserError(
            f"the upload must be smaller than {size_text(self.limit_bytes)}, but its "
            f"{len(self.uploads)} file(s) have {size_text(self.size_bytes)}. The largest:\n"
            f"{_largest(self.uploads)}\n"
            "Name what the sweep does not read in .gitignore or .rayignore."
        )


def size_text(size_bytes: int) -> str:
    """Returns a size as Ray counts it, such as ``12.5 MiB``."""
    size = float(size_bytes)
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"


def _largest(uploads: Sequence[Upload]) -> str:
    largest = sorted(uploads, key=lambda upload: -upload.size_bytes)[:_NAMED]
    return "\n".join(f"  {size_text(upload.size_bytes):>9}  {upload.path}" for upload in largest)
