"""The data behind the central stack's workloads: which image each service runs, and what it asks of a node.

Both are YAML files beside the stacks, ``images.yaml`` and ``resources.yaml``, so that an upgrade is a change of data
that a reviewer reads in one place.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from components.documents import line_of, parse_mapping
from components.problems import ConfigurationError, Problem, problems_of

__all__ = ["Catalog", "Image", "Quantity", "ResourceAmounts", "Resources", "Service", "load_catalog"]

_IMAGES = "stacks/images.yaml"
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
    WAIT = "wait"


_BORROWS_IMAGE = {Service.JWKS: Service.DATABASE}

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
"""A Kubernetes quantity: ``500m`` of a processor, ``2Gi`` of memory."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Image(_Strict):
    """A container image, pinned."""

    repository: Annotated[str, Field(pattern=r"^[a-z0-9]+([._/:-]+[a-z0-9]+)*$")]
    tag: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$")]
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None

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


class Resources(_Strict):
    """What a container asks for, and what it may take at most."""

    requests: ResourceAmounts
    limits: ResourceAmounts = ResourceAmounts()


class _Images(_Strict):
    images: dict[Service, Image]


class _Amounts(_Strict):
    resources: dict[Service, Resources]


class Catalog:
    """Both files, checked against each other's services.

    Args:
        images: by service; services that run another's image are left out.
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
        return self._images[_BORROWS_IMAGE.get(service, service)].reference(self._registry)

    def version(self, service: Service) -> str:
        """The tag of a service's image."""
        return self._images[_BORROWS_IMAGE.get(service, service)].tag

    def resources(self, service: Service) -> Resources:
        """What a service asks of its node."""
        return self._resources[service]


def load_catalog(
    root: Path, *, registry: str | None = None, overrides: Mapping[Service, Resources] | None = None
) -> Catalog:
    """Reads ``stacks/images.yaml`` and ``stacks/resources.yaml``.

    Args:
        root: the checkout.
        registry: a mirror from which all images are pulled.
        overrides: what a stack says instead, by service.

    Raises:
        ConfigurationError: with every problem of both files: a service without an image, a tag that pins nothing.
    """
    problems: list[Problem] = []
    images = _load(root, _IMAGES, _Images, problems)
    amounts = _load(root, _RESOURCES, _Amounts, problems)
    if images is not None:
        missing = [service for service in Service if service not in {**images.images, **_BORROWS_IMAGE}]
        problems.extend(_absent(_IMAGES, f"images.{service}", "{repository: …, tag: …}") for service in missing)
    if amounts is not None:
        missing = [service for service in Service if service not in amounts.resources]
        problems.extend(_absent(_RESOURCES, f"resources.{service}", "{requests: {…}}") for service in missing)
    if problems or images is None or amounts is None:
        raise ConfigurationError(problems)
    return Catalog(images.images, {**amounts.resources, **(overrides or {})}, registry)


_Model = TypeVar("_Model", bound=BaseModel)


def _load(root: Path, file: str, model: type[_Model], problems: list[Problem]) -> _Model | None:
    (first_key,) = model.model_fields
    document = parse_mapping(root / file, file, problems, first_key=first_key)
    if document is None:
        return None
    try:
        return model.model_validate(document)
    except ValidationError as error:
        problems.extend(
            problems_of(
                error,
                file,
                line_of=lambda path: line_of(document, path),
                known_keys=lambda path: _known_keys(model, path),
            )
        )
        return None


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    models: dict[int, type[BaseModel]] = {0: model, 2: Image if model is _Images else Resources, 3: ResourceAmounts}
    return [*models[len(path)].model_fields]


def _absent(file: str, field: str, expected: str) -> Problem:
    return Problem(file, 0, field, "nothing", expected)
