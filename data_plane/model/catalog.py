"""The data behind the central stack's workloads: which image each service runs, and what it asks of a node.

Both are YAML files beside the stacks, ``images.yaml`` and ``resources.yaml``, so that an upgrade is a change of data
that a reviewer reads in one place.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from data_plane.model.documents import line_of, link_problem, parse_mapping
from data_plane.model.problems import ConfigurationError, Problem, problems_of

__all__ = [
    "IMAGES_FILE",
    "Catalog",
    "Image",
    "Quantity",
    "ResourceAmounts",
    "Resources",
    "Service",
    "bytes_of",
    "load_catalog",
    "load_images",
]

IMAGES_FILE = "stacks/images.yaml"
_RESOURCES = "stacks/resources.yaml"
# Tags that are moved from one version to the next pin nothing.
_MOVING_TAGS = ("latest", "main", "master", "stable", "edge", "nightly", "dev")


class Service(StrEnum):
    """The parts of the central stack that run a container."""

    DATABASE = "database"
    POOLER = "pooler"
    GATEWAY = "gateway"
    AUTH = "auth"
    REST = "rest"
    REALTIME = "realtime"
    STORAGE = "storage"
    IMGPROXY = "imgproxy"
    STUDIO = "studio"
    META = "meta"
    FUNCTIONS = "functions"
    ANALYTICS = "analytics"
    LOGS = "logs"
    BACKUPS = "backups"
    JWKS = "jwks"
    """Runs the database's image."""
    GUARD = "guard"
    """Runs the database's image."""
    RELAY = "relay"
    """Runs the database's image."""
    WAIT = "wait"


_BORROWS_IMAGE = dict.fromkeys((Service.JWKS, Service.GUARD, Service.RELAY), Service.DATABASE)

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
"""A Kubernetes quantity: ``500m`` of a processor, ``2Gi`` of memory."""


_UNITS = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4} | {
    f"{unit}i": 1024**power for power, unit in enumerate("KMGT", 1)
}


def bytes_of(quantity: str) -> int:
    """The bytes of a quantity of memory."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity).groups()  # type: ignore[union-attr] # a Quantity
    return int(float(number) * _UNITS[unit])


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Image(_Strict):
    """A container image, pinned."""

    repository: Annotated[str, Field(pattern=r"^[a-z0-9]+([._/:-]+[a-z0-9]+)*$")]
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    source: Annotated[str, Field(min_length=1)] | None = None
    """Which file of the release names this version, or what else does; for people."""

    @field_validator("tag")
    @classmethod
    def _exact(cls, tag: str) -> str:
        if tag in _MOVING_TAGS or not any(character.isdigit() for character in tag):
            raise ValueError("the tag of one version, e.g. v14.17")
        return tag

    def reference(self, registry: str | None) -> str:
        """As a container runtime takes it.

        Args:
            registry: a mirror that is put in front, e.g. ``registry.example.com/mirror``.
        """
        name = self.repository if registry is None else f"{registry}/{self.repository}"
        pinned = f"{name}:{self.tag}"
        return pinned if self.digest is None else f"{pinned}@{self.digest}"


class ResourceAmounts(_Strict):
    """Amounts of a node's resources."""

    cpu: Quantity | None = None
    memory: Quantity | None = None
    ephemeral_storage: Annotated[Quantity | None, Field(alias="ephemeral-storage")] = None
    """The node's disk: scratch volumes, logs and what is written into the container itself."""

    def amounts(self) -> dict[str, str]:
        """As Kubernetes takes them."""
        return self.model_dump(by_alias=True, exclude_none=True)


class Resources(_Strict):
    """A container's requests and limits."""

    requests: ResourceAmounts
    limits: ResourceAmounts = ResourceAmounts()


class _Images(_Strict):
    images: dict[Service, Image]


class _Amounts(_Strict):
    resources: dict[Service, Resources]


class Catalog:
    """Both files, checked against each other's services.

    Args:
        images: by service; one that is left out runs another's image.
        resources: by service.
        registry: a mirror from which all images are pulled.
    """

    def __init__(
        self, images: Mapping[Service, Image], resources: Mapping[Service, Resources], registry: str | None = None
    ) -> None:
        self._images = images
        self._resources = resources
        self._registry = registry

    def image(self, service: Service) -> str:
        """The image of a service, as a container runtime takes it."""
        return self._image(service).reference(self._registry)

    def version(self, service: Service) -> str:
        """The tag of a service's image."""
        return self._image(service).tag

    def _image(self, service: Service) -> Image:
        return self._images.get(service) or self._images[_BORROWS_IMAGE[service]]

    def resources(self, service: Service) -> Resources:
        """Requests and limits of a service."""
        return self._resources[service]


def load_catalog(
    root: Path,
    *,
    registry: str | None = None,
    overrides: Mapping[Service, Resources] | None = None,
    images: Mapping[Service, Image] | None = None,
) -> Catalog:
    """Reads ``stacks/images.yaml`` and ``stacks/resources.yaml``.

    Args:
        root: the checkout.
        registry: a mirror from which all images are pulled.
        overrides: the amounts that a stack says instead, by service.
        images: the images that a stack says instead, by service.

    Raises:
        ConfigurationError: with every problem of both files: a service without an image, a tag that pins nothing.
    """
    problems: list[Problem] = []
    found = load_images(root, problems)
    amounts = _load(root, _RESOURCES, _Amounts, problems)
    if amounts is not None:
        missing = [service for service in Service if service not in amounts.resources]
        problems.extend(_absent(_RESOURCES, f"resources.{service}", "{requests: {…}}") for service in missing)
    if problems or found is None or amounts is None:
        raise ConfigurationError(problems)
    return Catalog({**found, **(images or {})}, {**amounts.resources, **(overrides or {})}, registry)


def load_images(root: Path, problems: list[Problem]) -> dict[Service, Image] | None:
    """The images of ``stacks/images.yaml``; None if it cannot be read.

    Args:
        root: the checkout.
        problems: is given what is wrong in it.
    """
    found = _load(root, IMAGES_FILE, _Images, problems)
    if found is None:
        return None
    missing = [service for service in Service if service not in {**found.images, **_BORROWS_IMAGE}]
    problems.extend(_absent(IMAGES_FILE, f"images.{service}", "{repository: …, tag: …}") for service in missing)
    return found.images


_Model = TypeVar("_Model", bound=BaseModel)


def _load(root: Path, file: str, model: type[_Model], problems: list[Problem]) -> _Model | None:
    if (problem := link_problem(root / file, root)) is not None:
        problems.append(problem)
        return None
    (first_key,) = model.model_fields
    document = parse_mapping(root / file, file, problems, first_key=first_key)
    if document is None:
        return None
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems.extend(problems_of(error, file, model, line_of=lambda path: line_of(document, path)))
        return None


def _absent(file: str, field: str, expected: str) -> Problem:
    return Problem(file, 0, field, "nothing", expected)
