"""The projects of an environment: one YAML file each under ``stacks/<environment>/projects/``.

This module reads and checks them. Checks that concern one file are pydantic's; those that concern all of them
(two projects with one name, a cell that is full) are in :func:`load_projects`. Every problem of every file is
reported at once, before any resource is declared.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from components.access import FractalOpsRole
from components.documents import line_of, parse_mapping
from components.durations import Duration, format_duration
from components.naming import IDENTIFIER_MAX_BYTES, SHARED_AUTHENTICATOR, SLUG_PATTERN, TenantNames
from components.problems import ConfigurationError, Problem, at_field, problems_of
from components.sizes import Size
from components.workloads import AppRole, ServiceAccount, Workload, WorkloadName

__all__ = [
    "Lifecycle",
    "Limits",
    "ManagedService",
    "Project",
    "SignUp",
    "StorageSettings",
    "known_cells",
    "load_projects",
    "project_folder",
    "project_json_schema",
]

_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,126}$"
_CELL_PATTERN = r"^[a-z][a-z0-9-]{0,38}[a-z0-9]$"
_MIME_PATTERN = r"^[a-zA-Z0-9.+-]+/([a-zA-Z0-9.+-]+|\*)$"

Subject = Annotated[str, Field(pattern=_NAME_PATTERN)]


class ManagedService(StrEnum):
    """The services of the central Supabase that a project can be given."""

    POSTGRES = "postgres"
    AUTH = "auth"
    STORAGE = "storage"


class Lifecycle(StrEnum):
    """Whether a project may use its slice now. Its data is kept either way."""

    ATTACHED = "attached"
    DETACHED = "detached"


class SignUp(StrEnum):
    """Who becomes a member of a project: whoever signs up for it, or only who was invited."""

    OPEN = "open"
    CLOSED = "closed"


class Api(StrEnum):
    """Which PostgREST serves a project: the one that all share, or one that serves no other.

    SQL of a project's own that runs in the shared one can become every other project's API roles that it serves
    (docs/operations.md#who-has-to-be-trusted).
    """

    SHARED = "shared"
    DEDICATED = "dedicated"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Strict):
    """What one project may take of the shared database."""

    lease_ttl: Annotated[Duration, Field(ge=5, description="How long a lease lasts before it is renewed.")] = 3600
    lease_max_ttl: Annotated[
        Duration, Field(ge=5, description="How long a lease lasts at most, renewals included.")
    ] = 12 * 3600
    connection_limit: Annotated[
        int, Field(ge=1, le=200, strict=True, description="Connections that one lease may hold open at a time.")
    ] = 10
    statement_timeout: Annotated[
        Duration, Field(le=3600, description="A statement that runs longer is cancelled, unless the session sets more.")
    ] = 30

    @model_validator(mode="after")
    def _max_covers_ttl(self) -> "Limits":
        if self.lease_max_ttl < self.lease_ttl:
            expected = f"at least limits.lease_ttl, which is {format_duration(self.lease_ttl)}"
            raise at_field("lease_max_ttl", format_duration(self.lease_max_ttl), expected)
        return self


class StorageSettings(_Strict):
    """The bucket of a project that has `storage` among its managed services."""

    public: Annotated[
        bool, Field(strict=True, description="Whether anybody may read its files; else only the project's users.")
    ] = False
    file_size_limit: Annotated[
        Size | None, Field(description="The largest file. Storage has a limit of its own for all buckets.")
    ] = None
    allowed_mime_types: Annotated[
        list[Annotated[str, Field(pattern=_MIME_PATTERN)]] | None,
        Field(min_length=1, description="What may be uploaded, e.g. image/png or image/*; anything by default."),
    ] = None


class Project(_Strict):
    """A project that attaches a slice of the central Supabase."""

    slug: Annotated[
        str,
        Field(pattern=SLUG_PATTERN, description="The project's name in every path, schema and role. Never changes."),
    ]
    display_name: Annotated[str, Field(min_length=1, max_length=80, description="The name shown to people.")]
    cell: Annotated[str, Field(pattern=_CELL_PATTERN, description="The cell (a Pulumi stack) that holds the tenant.")]
    owners: Annotated[
        list[Subject], Field(min_length=1, description="People with the role project_owner, by their login name.")
    ]
    users: Annotated[dict[FractalOpsRole, list[Subject]], Field(description="Further people, by FractalOps role.")] = {}
    teams: Annotated[dict[FractalOpsRole, list[Subject]], Field(description="Teams, by FractalOps role.")] = {}
    workloads: Annotated[
        dict[WorkloadName, Workload],
        Field(
            description="Programs that take leases, by a name of the project's own.",
            # pydantic writes the names' pattern, and would let any other name pass.
            json_schema_extra={"additionalProperties": False},
        ),
    ] = {}
    managed_services: Annotated[
        list[ManagedService], Field(min_length=1, description="The services that the project requires.")
    ] = [ManagedService.POSTGRES]
    sign_up: Annotated[
        SignUp, Field(description="Who becomes a member: whoever signs up naming the project, or only who was invited.")
    ] = SignUp.CLOSED
    storage: StorageSettings = StorageSettings()
    limits: Limits = Limits()
    exposed: Annotated[
        bool, Field(strict=True, description="Whether the schema is served through the API gateway.")
    ] = True
    api: Annotated[
        Api, Field(description="Which PostgREST serves it: the one that projects share, or one of its own.")
    ] = Api.SHARED
    lifecycle: Annotated[
        Lifecycle, Field(description="`detached` takes away all access and leases and keeps the data.")
    ] = Lifecycle.ATTACHED

    @field_validator("owners", "managed_services")
    @classmethod
    def _no_repeats(cls, values: list[str]) -> list[str]:
        repeated = sorted({str(value) for value in values if values.count(value) > 1})
        if repeated:
            raise ValueError(f"each entry once; repeated: {', '.join(repeated)}")
        return values

    @field_validator("users", "teams")
    @classmethod
    def _no_repeats_in_a_role(cls, roles: dict[FractalOpsRole, list[str]]) -> dict[FractalOpsRole, list[str]]:
        for role, names in roles.items():
            repeated = sorted({name for name in names if names.count(name) > 1})
            if repeated:
                raise ValueError(f"each name once in {role}; repeated: {', '.join(repeated)}")
        return roles

    @field_validator("managed_services")
    @classmethod
    def _postgres_is_included(cls, services: list[ManagedService]) -> list[ManagedService]:
        if ManagedService.POSTGRES not in services:
            raise ValueError("`postgres` among them: auth and storage keep their rules in the project's schema")
        return services

    @field_validator("workloads")
    @classmethod
    def _one_workload_for_an_account(cls, workloads: dict[str, Workload]) -> dict[str, Workload]:
        taken: dict[ServiceAccount, str] = {}
        for name, workload in workloads.items():
            if workload.kubernetes is None:
                continue
            other = taken.setdefault(workload.kubernetes, name)
            if other != name:
                # Whoever runs as it could sign in as either, so would have both levels.
                raise ValueError(f"a service account of its own for each; {other} and {name} have the same")
        return workloads

    @model_validator(mode="after")
    def _settings_are_of_managed_services(self) -> "Project":
        for field, service in (("sign_up", ManagedService.AUTH), ("storage", ManagedService.STORAGE)):
            if field in self.model_fields_set and service not in self.managed_services:
                raise at_field(field, "this field", f"`{service}` among managed_services, or this field removed")
        return self

    @property
    def names(self) -> TenantNames:
        """The names of the tenant's objects."""
        return TenantNames(self.slug)

    @property
    def authenticator(self) -> str | None:
        """The login of the PostgREST that serves the project; None while none does."""
        if not self.exposed or self.lifecycle is not Lifecycle.ATTACHED:
            return None
        return self.names.authenticator if self.api is Api.DEDICATED else SHARED_AUTHENTICATOR

    def members(self, kind: Literal["users", "teams"]) -> Iterator[tuple[FractalOpsRole, str]]:
        """Every person or team of the project, with the role that it has; owners are users."""
        if kind == "users":
            yield from ((FractalOpsRole.PROJECT_OWNER, owner) for owner in self.owners)
        by_role: dict[FractalOpsRole, list[str]] = getattr(self, kind)
        yield from ((role, name) for role, names in by_role.items() for name in names)


def project_json_schema() -> dict[str, Any]:
    """The JSON Schema of a project file, for editors and other tools."""
    schema = Project.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def project_folder(root: Path, environment: str) -> Path:
    """Where an environment's projects lie."""
    return root / "stacks" / environment / "projects"


def load_projects(
    root: Path, environment: str, *, lease_ttl_maximum: int | None = None, cell_size: int | None = None
) -> list[Project]:
    """All projects of an environment, by slug.

    Args:
        root: the checkout.
        environment: name of the folder under ``stacks/``.
        lease_ttl_maximum: seconds; longer leases are a problem.
        cell_size: projects a cell may hold.

    Raises:
        ConfigurationError: with every problem of every file.
    """
    folder = project_folder(root, environment)
    if not folder.is_dir():
        place = _shown(folder, root)
        raise ConfigurationError([Problem(place, 0, "environment", "no such folder", "a folder of project files")])
    problems: list[Problem] = []
    loaded: list[_Loaded] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".yaml", ".yml"}:
            continue
        item = _load(path, _shown(path, root), problems)
        if item is not None:
            loaded.append(item)
    problems.extend(_clashes(loaded))
    problems.extend(_strays(loaded, known_cells(root, environment)))
    problems.extend(_excesses(loaded, lease_ttl_maximum, cell_size))
    if problems:
        raise ConfigurationError(problems)
    return sorted((item.project for item in loaded), key=lambda project: project.slug)


def known_cells(root: Path, environment: str) -> dict[str, str]:
    """The cells of an environment, by name, each with its stack: what ``stacks/Pulumi.<stack>.yaml`` files declare."""
    cells = {}
    for path in sorted((root / "stacks").glob("Pulumi.*.yaml")):
        config = (YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}).get("config") or {}
        settings = {key.rpartition(":")[2]: value for key, value in config.items()}
        if settings.get("kind") == "cell" and settings.get("environment") == environment:
            cells[str(settings.get("cell"))] = path.name.removeprefix("Pulumi.").removesuffix(".yaml")
    return cells


class _Loaded:
    """A file that is valid in itself, and where its fields stand."""

    def __init__(self, file: str, document: CommentedMap, project: Project) -> None:
        self.file = file
        self.document = document
        self.project = project

    def problem(self, field: str, found: str, expected: str) -> Problem:
        return Problem(self.file, line_of(self.document, tuple(field.split("."))), field, found, expected)


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _load(path: Path, file: str, problems: list[Problem]) -> _Loaded | None:
    document = parse_mapping(path, file, problems, first_key="slug")
    if document is None:
        return None
    try:
        project = Project.model_validate(document)
    except ValidationError as error:
        found = problems_of(error, file, line_of=lambda path: line_of(document, path), known_keys=_known_keys)
        problems.extend(found)
        return None
    item = _Loaded(file, document, project)
    if path.stem != project.slug:
        problems.append(
            item.problem("slug", repr(project.slug), f"the file's name, {path.stem!r}, or the file renamed")
        )
    if path.suffix != ".yaml":
        problems.append(Problem(file, 0, "file name", repr(path.name), repr(f"{path.stem}.yaml")))
    return item


def _known_keys(path: tuple[int | str, ...]) -> Iterable[str]:
    nested: dict[tuple[int | str, ...], type[BaseModel]] = {("limits",): Limits, ("storage",): StorageSettings}
    match path:
        case ("workloads", _):
            return Workload.model_fields
        case ("workloads", _, "kubernetes"):
            return ServiceAccount.model_fields
        case ("workloads", _, "approle"):
            return AppRole.model_fields
        case _:
            return nested.get(path, Project).model_fields


def _clashes(loaded: list[_Loaded]) -> Iterator[Problem]:
    taken: dict[str, _Loaded] = {}
    for item in loaded:
        for identifier in item.project.names.identifiers():
            if len(identifier.encode()) > IDENTIFIER_MAX_BYTES:
                yield item.problem("slug", repr(item.project.slug), f"a shorter one: {identifier} is too long")
        schema = item.project.names.schema
        if schema in taken:
            expected = f"another slug: {taken[schema].file} already has the schema {schema}"
            yield item.problem("slug", repr(item.project.slug), expected)
        else:
            taken[schema] = item


def _strays(loaded: list[_Loaded], cells: dict[str, str]) -> Iterator[Problem]:
    """Projects whose cell no stack has, so that they would be left out without a word."""
    for item in loaded:
        if cells and item.project.cell not in cells:
            expected = f"one of {', '.join(cells)}, or a new stacks/Pulumi.<stack>.yaml with this cell"
            yield item.problem("cell", repr(item.project.cell), expected)


def _excesses(loaded: list[_Loaded], lease_ttl_maximum: int | None, cell_size: int | None) -> Iterator[Problem]:
    cells: defaultdict[str, list[_Loaded]] = defaultdict(list)
    for item in loaded:
        cells[item.project.cell].append(item)
        for field in ("lease_ttl", "lease_max_ttl"):
            seconds: int = getattr(item.project.limits, field)
            if lease_ttl_maximum is not None and seconds > lease_ttl_maximum:
                expected = f"at most {format_duration(lease_ttl_maximum)} (the stack's leaseTtlMaximum)"
                yield item.problem(f"limits.{field}", format_duration(seconds), expected)
    for cell, items in cells.items():
        for item in items[cell_size:] if cell_size is not None else ():
            expected = f"another cell: this one has its {cell_size} projects (the stack's cellSize)"
            yield item.problem("cell", repr(cell), expected)
