"""Charts as archives: unpacked within limits, so that what they hold is read as a folder's."""

import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from policies.artifacts.findings import Place, UncheckedError
from policies.artifacts.sources import FILE_MAX_BYTES, Root

__all__ = ["unpacked"]

FILES_MAX = 5_000
UNPACKED_MAX_BYTES = 32 * 1024 * 1024
_READ = {".yaml", ".yml", ".json", ".tpl", ".gotmpl", ".tgz"}


class _Limited(io.RawIOBase):
    """What a compressed text unpacks to, up to a size."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at, self._waiting, self._given = content, 0, b"", 0
        self._inflate = zlib.decompressobj(wbits=31)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        size = 65_536 if size < 0 else size
        while len(self._waiting) < size and not self._inflate.eof:
            block = self._inflate.unconsumed_tail or self._content[self._at : self._at + 65_536]
            if not self._inflate.unconsumed_tail:
                self._at += len(block)
            if not block:
                break
            self._waiting += self._inflate.decompress(block, 65_536)
        found, self._waiting = self._waiting[:size], self._waiting[size:]
        self._given += len(found)
        if self._given > UNPACKED_MAX_BYTES:
            raise ValueError(f"it unpacks to more than {UNPACKED_MAX_BYTES} bytes")
        return found


@contextmanager
def unpacked(path: Path, root: Root) -> Iterator[Root]:
    """A root with what an archive (``.tgz``) holds, for as long as it is looked at.

    Raises:
        UncheckedError: if it is no such archive, or larger than charts are.
    """
    place = Place(root.relative(path))
    with TemporaryDirectory(prefix="policy-check-") as name:
        folder = Path(name).resolve()
        try:
            # A stream is read once from its beginning to its end; nothing of it is followed or placed by itself.
            with tarfile.open(fileobj=_Limited(root.read_bytes(path)), mode="r|") as archive:
                for number, member in enumerate(archive):
                    _unpack(archive, member, number, folder)
        except (tarfile.TarError, zlib.error, ValueError, EOFError, OSError) as error:
            raise UncheckedError(place, f"it is no archive that can be read: {error}") from error
        yield Root(folder, root.relative(path))


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, number: int, folder: Path) -> None:
    if number >= FILES_MAX:
        raise ValueError(f"it holds more than {FILES_MAX} files")
    name = PurePosixPath(member.name)
    if not member.isfile() or name.suffix not in _READ:
        return
    if name.is_absolute() or ".." in name.parts or len(name.parts) > 32:
        raise ValueError(f"{member.name[:80]!r} leads out of it")
    if member.size > FILE_MAX_BYTES:
        raise ValueError(f"{member.name[:80]!r} has more than {FILE_MAX_BYTES} bytes")
    content = archive.extractfile(member)
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content.read() if content else b"")
