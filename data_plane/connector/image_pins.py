"""Digests for the images that a file names by tag: what each registry has now, written beside the tag."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from data_plane.clients.registry import ImageReference, RegistryError, digest_of, registry_session
from data_plane.connector.whole_file import write_whole
from data_plane.errors import ConnectorError
from data_plane.model.catalog import IMAGES_FILE, Image, Service, load_images
from data_plane.model.documents import line_of, parse_mapping
from data_plane.model.problems import ConfigurationError, Problem

__all__ = ["ImagePin", "ImagePinError", "apply_pins", "find_pins"]

_WIDE = 4096
_KEY = "images"


class ImagePinError(ConnectorError):
    """An image's digest cannot be had, or is not the one that its file has. The file is as it was."""

    code = "images-not-pinned"


@dataclass(frozen=True)
class ImagePin:
    """What one image of the file is pinned to, and what its tag stands for now."""

    service: Service
    image: str
    """Repository and tag."""
    line: int
    pinned: str | None
    found: str

    @property
    def differs(self) -> bool:
        """Whether the file does not have the digest that the tag stands for."""
        return self.pinned != self.found

    def __str__(self) -> str:
        place = f"{IMAGES_FILE}:{self.line}: {_KEY}.{self.service}"
        return f"{place}: {self.image} is {self.found}; pinned to {self.pinned or 'nothing'}"


def find_pins(root: Path, *, registry: str | None = None, say: Callable[[str], None]) -> list[ImagePin]:
    """Asks for the digest of every image of ``stacks/images.yaml``.

    Args:
        root: the checkout.
        registry: a mirror to ask instead of the images' own registries.
        say: is told of each image before it is asked for.

    Raises:
        ConfigurationError: if the file cannot be used.
        ImagePinError: with every image for which there is no answer.
    """
    images, document = _read(root)
    pins, problems = list[ImagePin](), list[str]()
    with registry_session() as session:
        for service, image in images.items():
            name = f"{image.repository}:{image.tag}"
            line = line_of(document, (_KEY, str(service)))
            say(name)
            try:
                found = digest_of(ImageReference.parse(image.reference(registry)), session)
            except RegistryError as error:
                problems.append(f"{IMAGES_FILE}:{line}: {_KEY}.{service}: {name}: {error}")
            else:
                pins.append(ImagePin(service, name, line, image.digest, found))
    if problems:
        raise ImagePinError("\n".join(["nothing was written, because of:", *(f"  {problem}" for problem in problems)]))
    return pins


def apply_pins(root: Path, pins: Mapping[Service, ImagePin]) -> None:
    """Writes digests into ``stacks/images.yaml``, all or none; everything else in it stays, comments too.

    Raises:
        ConfigurationError: if the file cannot be used any more.
        ImagePinError: if another image stands there by now, or the file cannot be written.
    """
    images, document = _read(root)
    for service, pin in pins.items():
        image = images.get(service)
        if image is None or f"{image.repository}:{image.tag}" != pin.image:
            raise ImagePinError(f"{IMAGES_FILE}: {_KEY}.{service} was changed meanwhile: run the command again")
        _put_digest(document[_KEY][str(service)], pin.found)
    text = StringIO()
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = _WIDE
    yaml.dump(document, text)
    path = root / IMAGES_FILE
    try:
        write_whole(path, text.getvalue())
    except OSError as error:
        raise ImagePinError(f"{path} cannot be written: {error.strerror}; it is as it was") from error


def _read(root: Path) -> tuple[dict[Service, Image], CommentedMap]:
    problems: list[Problem] = []
    images = load_images(root, problems)
    document = parse_mapping(root / IMAGES_FILE, IMAGES_FILE, problems, first_key=_KEY) if images else None
    if problems or images is None or document is None:
        raise ConfigurationError(problems)
    return images, document


def _put_digest(entry: CommentedMap, digest: str) -> None:
    if "digest" in entry:
        entry["digest"] = digest
        return
    # A comment behind the tag stays there: the library keeps it with the key before it.
    entry.insert([*entry].index("tag") + ("tag" not in entry.ca.items), "digest", digest)
