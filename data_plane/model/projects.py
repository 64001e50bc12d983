"""The projects of an environment: one YAML file each under ``stacks/<environment>/projects/``.

This module reads and checks them. Checks that concern one file are pydantic's; those that concern all of them
(two projects with one name, a cell that is full) are in :func:`load_projects`. Every problem of every file is
reported at once, before any resource is declared.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from data_plane.model.access import FractalOpsRole
from data_plane.model.cluster_settings import DatabaseMode
from data_plane.model.documents import line_of, link_problem, parse_mapping
from data_plane.model.durations import Duration, format_duration
from data_plane.model.naming import (
    CELL_PATTERN,
    IDENTIFIER_MAX_BYTES,
    RESERVED_SCHEMAS,
    SCHEMA_NAME_PATTERN,
    SLUG_PATTERN,
    ApiServer,
    TenantNames,
)
from data_plane.model.patterns import BUCKET_PATTERN, MIME_PATTERN, PERSON_PATTERN
from data_plane.model.problems import ConfigurationError, Problem, at_field, problems_of
from data_plane.model.server_parameters import MAX_CONNECTIONS, tenant_connections
from data_plane.model.sizes import Size
from data_plane.model.workloads import ServiceAccount, Workload, WorkloadName

__all__ = [
    "Api",
    "BucketSettings",
    "Lifecycle",
    "Limits",
    "ManagedService",
    "Project",
    "RealtimeSettings",
    "SchemaName",
    "SchemaSettings",
    "SignUp",
    "StorageSettings",
    "Topics",
    "api_servers",
    "connections_for_projects",
    "known_cells",
    "load_projects",
    "overcommitment",
    "project_folder",
    "project_json_schema",
    "slugs_of",
    "stack_files",
]

Subject = Annotated[str, Field(pattern=PERSON_PATTERN)]
BucketName = Annotated[str, Field(pattern=BUCKET_PATTERN)]

SchemaName = Annotated[str, Field(pattern=SCHEMA_NAME_PATTERN)]
"""What a project calls a schema beside its first one."""


class ManagedService(StrEnum):
    """The services of the central Supabase that a project can be given."""

    POSTGRES = "postgres"
    AUTH = "auth"
    STORAGE = "storage"
    REALTIME = "realtime"


class Lifecycle(StrEnum):
    """Whether a project may use its slice now. Its data is kept either way."""

    ATTACHED = "attached"
    DETACHED = "detached"


class SignUp(StrEnum):
    """Who becomes a member of a project: everybody who signs up for it, or only those invited."""

    OPEN = "open"
    CLOSED = "closed"


class Api(StrEnum):
    """Which PostgREST serves a project: its cell's, or one that serves no other project.

    A PostgREST may become the API roles of all projects that it serves (docs/explanation/shared-api.md).
    """

    SHARED = "shared"
    DEDICATED = "dedicated"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Limits(_Strict):
    """Limits of one project on the shared database."""

    lease_ttl: Annotated[Duration, Field(ge=5, description="How long a lease lasts before it is renewed.")] = 3600
    lease_max_ttl: Annotated[
        Duration, Field(ge=5, description="How long a lease lasts at most, renewals included.")
    ] = 12 * 3600
    connection_limit: Annotated[
        int, Field(ge=1, le=200, strict=True, description="Connections that one lease may hold open at a time.")
    ] = 10
    connections: Annotated[
        int,
        Field(
            ge=1,
            le=1000,
            strict=True,
            description="Connections that all its leases may hold open together: 20, or connection_limit if more.",
        ),
    ] = Field(default_factory=lambda others: max(20, others.get("connection_limit", 0)))
    leases: Annotated[int, Field(ge=1, le=10_000, strict=True, description="Leases in force at a time.")] = 1000
    storage: Annotated[
        Size,
        Field(
            description="Size of its tables, indexes and large objects; when it is reached, rows can only be deleted."
        ),
    ] = 10 << 30
    statement_timeout: Annotated[
        Duration,
        Field(
            le=3600, description="A statement that runs longer is cancelled; an owner's may set transaction_timeout."
        ),
    ] = 30
    transaction_timeout: Annotated[
        Duration, Field(le=86400, description="A session whose transaction is open longer is ended.")
    ] = 900
    idle_in_transaction_timeout: Annotated[
        Duration, Field(le=3600, description="A session that is idle in a transaction for longer is ended.")
    ] = 60
    schemas: Annotated[
        int, Field(ge=0, le=100, strict=True, description="Schemas that it may have beside its first one.")
    ] = 10
    buckets: Annotated[
        int, Field(ge=0, le=1000, strict=True, description="Buckets that it may have beside its first one.")
    ] = 20
    jobs: Annotated[int, Field(ge=0, le=100, strict=True, description="Scheduled jobs that it may have.")] = 10
    objects: Annotated[
        int,
        Field(
            ge=100,
            le=100_000,
            strict=True,
            description="Tables, indexes, views, sequences, functions, types and large objects that it may own.",
        ),
    ] = 5000

    @model_validator(mode="after")
    def _max_covers_ttl(self) -> "Limits":
        if self.lease_max_ttl < self.lease_ttl:
            expected = f"at least limits.lease_ttl, which is {format_duration(self.lease_ttl)}"
            raise at_field("lease_max_ttl", format_duration(self.lease_max_ttl), expected)
        if self.connections < self.connection_limit:
            expected = f"at least limits.connection_limit, which is {self.connection_limit}"
            raise at_field("connections", str(self.connections), expected)
        return self


class BucketSettings(_Strict):
    """A bucket of a project."""

    public: Annotated[
        bool, Field(strict=True, description="Whether anybody may read its files; else only the project's users.")
    ] = False
    file_size_limit: Annotated[
        Size | None, Field(description="The largest file. Storage has a limit of its own for all buckets.")
    ] = None
    allowed_mime_types: Annotated[
        list[Annotated[str, Field(pattern=MIME_PATTERN)]] | None,
        Field(min_length=1, description="What may be uploaded, e.g. image/png or image/*; anything by default."),
    ] = None


class SchemaSettings(_Strict):
    """A schema of a project beside its first one."""

    exposed: Annotated[
        bool, Field(strict=True, description="Whether it is served through the API gateway, as the first one is.")
    ] = False


class StorageSettings(BucketSettings):
    """The first bucket of a project that has `storage` among its managed services, and its further ones."""

    buckets: Annotated[
        dict[BucketName, BucketSettings],
        Field(
            description="Further buckets, by name; clients call them <schema>.<name>.",
            json_schema_extra={"additionalProperties": False},
        ),
    ] = {}

    @model_validator(mode="after")
    def _buckets_are_for_files(self) -> "StorageSettings":
        for name in self.buckets:
            if name.endswith("--table-s3"):  # Storage makes another kind of bucket of these
                raise at_field("buckets", name, "names that do not end in --table-s3")
        return self


class Topics(StrEnum):
    """Who may use a project's Realtime topics: all of its users, or those whom its rules let."""

    USERS = "users"
    RULES = "rules"


class RealtimeSettings(_Strict):
    """Broadcast and presence of a project that has `realtime` among its managed services."""

    topics: Annotated[
        Topics,
        Field(
            description="Who reads and writes: `users`, all users of the project; `rules`, those whom its rules let."
        ),
    ] = Topics.USERS
    public: Annotated[
        bool, Field(strict=True, description="Whether tokens of the level anon may join; with `users`, they read.")
    ] = False
    max_concurrent_users: Annotated[int, Field(ge=1, le=100_000, strict=True, description="Clients at a time.")] = 200
    max_events_per_second: Annotated[int, Field(ge=1, le=100_000, strict=True, description="Messages, of all.")] = 100
    max_bytes_per_second: Annotated[Size, Field(le=1 << 30, description="Bytes of messages, of all.")] = 128 << 10
    max_channels_per_client: Annotated[int, Field(ge=1, le=1000, strict=True, description="Topics of a client.")] = 100
    max_joins_per_second: Annotated[int, Field(ge=1, le=10_000, strict=True, description="Joins, of all.")] = 100


class Project(_Strict):
    """A project that attaches a slice of the central Supabase."""

    slug: Annotated[
        str,
        Field(pattern=SLUG_PATTERN, description="The project's name in every path, schema and role. Never changes."),
    ]
    display_name: Annotated[str, Field(min_length=1, max_length=80, description="The name shown to people.")]
    cell: Annotated[str, Field(pattern=CELL_PATTERN, description="The cell (a Pulumi stack) that holds the tenant.")]
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
        SignUp,
        Field(description="Who becomes a member: everybody who signs up naming the project, or only those invited."),
    ] = SignUp.CLOSED
    storage: StorageSettings = StorageSettings()
    schemas: Annotated[
        dict[SchemaName, SchemaSettings],
        Field(
            description="Schemas beside its first one: `private` is proj_<slug>$private. Migrations may make more.",
            json_schema_extra={"additionalProperties": False},
        ),
    ] = {}
    realtime: RealtimeSettings = RealtimeSettings()
    limits: Limits = Limits()
    exposed: Annotated[
        bool, Field(strict=True, description="Whether the schema is served through the API gateway.")
    ] = True
    api: Annotated[
        Api,
        Field(
            description="Which PostgREST serves it: its cell's, or one that serves no other project. "
            "Unless given, what its central stack's setting `projectApi` says.",
            json_schema_extra=lambda schema: schema.pop("default"),
        ),
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

    @model_validator(mode="after")
    def _one_role_each(self) -> "Project":
        kinds: tuple[Literal["users", "teams"], ...] = ("users", "teams")
        for kind in kinds:
            taken: dict[str, FractalOpsRole] = {}
            for role, name in self.members(kind):
                other = taken.setdefault(name, role)
                if other is not role:
                    has = "one of owners" if kind == "users" and name in self.owners else f"{other} too"
                    raise at_field(f"{kind}.{role}", f"{name!r}, who is {has}", "each name in one role")
        return self

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
                # A program that runs as it could sign in as either, so would have both levels.
                raise ValueError(f"a service account of its own for each; {other} and {name} have the same")
        return workloads

    @model_validator(mode="after")
    def _settings_are_of_managed_services(self) -> "Project":
        for field, service in (
            ("sign_up", ManagedService.AUTH),
            ("storage", ManagedService.STORAGE),
            ("realtime", ManagedService.REALTIME),
        ):
            if field in self.model_fields_set and service not in self.managed_services:
                raise at_field(field, "this field", f"`{service}` among managed_services, or this field removed")
        if len(self.storage.buckets) > self.limits.buckets:
            found, expected = f"{len(self.storage.buckets)} buckets", f"at most {self.limits.buckets} (limits.buckets)"
            raise at_field("storage", found, expected)
        return self

    @model_validator(mode="after")
    def _schemas_can_be_made(self) -> "Project":
        for name, settings in self.schemas.items():
            if name in RESERVED_SCHEMAS:
                raise at_field("schemas", name, "another name: this one is the platform's")
            if len(self.names.further_schema(name)) > IDENTIFIER_MAX_BYTES:
                longest = IDENTIFIER_MAX_BYTES - len(self.names.further_schema(""))
                raise at_field("schemas", name, f"a name of at most {longest} letters")
            if settings.exposed and not self.exposed:
                raise at_field(
                    "schemas", f"{name} exposed", "`exposed: true` of the project, or the schema not exposed"
                )
        if len(self.schemas) > self.limits.schemas:
            raise at_field("schemas", str(len(self.schemas)), f"at most limits.schemas, which is {self.limits.schemas}")
        return self

    @property
    def names(self) -> TenantNames:
        """The names of the tenant's objects."""
        return TenantNames(self.slug)

    @property
    def api_server(self) -> ApiServer | None:
        """The PostgREST that serves the project; None while none does."""
        if not self.exposed or self.lifecycle is not Lifecycle.ATTACHED:
            return None
        return self.names.api_server if self.api is Api.DEDICATED else ApiServer.of_cell(self.cell)

    @property
    def exposed_schemas(self) -> list[str]:
        """The further schemas that are served, by name."""
        return sorted(name for name, settings in self.schemas.items() if settings.exposed)

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
    """The folder of an environment's project files."""
    return root / "stacks" / environment / "projects"


def slugs_of(root: Path, environment: str) -> list[str]:
    """The slugs of an environment's projects, by the names of their files, which are not read."""
    return sorted(path.stem for path in project_folder(root, environment).glob("*.yaml"))


def load_projects(
    root: Path, environment: str, *, lease_ttl_maximum: int | None = None, cell_size: int | None = None
) -> list[Project]:
    """All projects of an environment, by slug; those that do not say which PostgREST serves them have what it gives.

    Args:
        root: the checkout.
        environment: name of the folder under ``stacks/``.
        lease_ttl_maximum: seconds; longer leases are a problem.
        cell_size: projects a cell may hold.

    Raises:
        ConfigurationError: with every problem of every file.
    """
    folder = project_folder(root, environment)
    if (problem := link_problem(folder, root)) is not None:
        raise ConfigurationError([problem])
    if not folder.is_dir():
        place = _shown(folder, root)
        raise ConfigurationError([Problem(place, 0, "environment", "no such folder", "a folder of project files")])
    problems: list[Problem] = []
    loaded: list[_Loaded] = []
    for path in sorted(folder.iterdir()):
        if path.suffix not in {".yaml", ".yml"}:
            continue
        if (problem := link_problem(path, root)) is not None:
            problems.append(problem)
            continue
        item = _load(path, _shown(path, root), problems)
        if item is not None:
            loaded.append(item)
    stacks = _stacks(root, environment)
    apis = _project_apis(stacks, problems)
    for item in loaded:
        if "api" not in item.project.model_fields_set:
            item.project = item.project.model_copy(update={"api": apis.get(item.project.cell, Api.SHARED)})
    problems.extend(_clashes(loaded))
    problems.extend(_one_for_openbao(loaded))
    problems.extend(_strays(loaded, _cells(stacks)))
    problems.extend(_missing_methods(loaded, stacks))
    problems.extend(_excesses(loaded, lease_ttl_maximum, cell_size))
    problems.extend(_too_many_connections(loaded, connections_for_projects(root, environment)))
    if problems:
        raise ConfigurationError(problems)
    return sorted((item.project for item in loaded), key=lambda project: project.slug)


def stack_files(root: Path) -> list[Path]:
    """Every ``stacks/Pulumi.<stack>.yaml``.

    Raises:
        ConfigurationError: if one of them is a link.
    """
    found = sorted((root / "stacks").glob("Pulumi.*.yaml"))
    problems = [problem for path in found if (problem := link_problem(path, root)) is not None]
    if problems:
        raise ConfigurationError(dict.fromkeys(problems))
    return found


def connections_for_projects(root: Path, environment: str) -> int | None:
    """How many connections an environment's server has for its projects together; None if it is somebody else's."""
    for settings in _stacks(root, environment).values():
        if settings.get("kind") == "central":
            database = (settings.get("kubernetes") or {}).get("database") or {}
            if database.get("mode") == DatabaseMode.EXTERNAL:
                return None
            return tenant_connections(int(database.get("maxConnections", MAX_CONNECTIONS)))
    return None


def overcommitment(projects: Iterable[Project], connections: int | None) -> str | None:
    """A warning if the projects of a server may hold more connections than it has for them."""
    wanted = sum(item.limits.connections for item in projects if item.lifecycle is Lifecycle.ATTACHED)
    if connections is None or wanted <= connections:
        return None
    return (
        f"Together they may hold {wanted} connections, and the server has {connections} for projects. All of them at "
        "once cannot: lower `limits.connections`, or raise `kubernetes.database.maxConnections` of the central stack."
    )


def known_cells(root: Path, environment: str, *, central: str | None = None) -> dict[str, str]:
    """The cells of an environment, by name, each with its stack: what ``stacks/Pulumi.<stack>.yaml`` files declare.

    Args:
        central: the stack whose cells these are; those of all unless given.

    Raises:
        ConfigurationError: if one of these files is a link.
    """
    stacks = _stacks(root, environment)
    return {cell: stack for cell, stack in _cells(stacks).items() if central in {None, _central_of(stacks[stack])}}


def api_servers(projects: Iterable[Project], cells: Iterable[str]) -> list[ApiServer]:
    """Every PostgREST for the projects of some cells, whether or not it serves one now."""
    cells = set(cells)
    dedicated = (project for project in projects if project.api is Api.DEDICATED and project.cell in cells)
    return sorted([*map(ApiServer.of_cell, cells), *(project.names.api_server for project in dedicated)])


def _stacks(root: Path, environment: str) -> dict[str, dict[str, Any]]:
    """The settings in ``stacks/Pulumi.<stack>.yaml`` files of an environment, by stack."""
    stacks = {}
    for path in stack_files(root):
        config = (YAML(typ="safe").load(path.read_text(encoding="utf-8")) or {}).get("config") or {}
        settings = {key.rpartition(":")[2]: value for key, value in config.items()}
        if settings.get("environment") == environment:
            stacks[path.name.removeprefix("Pulumi.").removesuffix(".yaml")] = settings
    return stacks


def _cells(stacks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    return {str(found.get("cell")): stack for stack, found in stacks.items() if found.get("kind") == "cell"}


def _central_of(cell: Mapping[str, Any]) -> str:
    """The central stack that a cell's settings name."""
    return str(cell.get("centralStack")).rpartition("/")[2]


def _project_apis(stacks: Mapping[str, Mapping[str, Any]], problems: list[Problem]) -> dict[str, Api]:
    """The default of `api`, by cell, from the file of its central stack."""
    by_central = {}
    for stack, settings in stacks.items():
        if settings.get("kind") == "central" and "projectApi" in settings:
            try:
                by_central[stack] = Api(settings["projectApi"])
            except ValueError:
                file, found = f"stacks/Pulumi.{stack}.yaml", repr(settings["projectApi"])
                problems.append(Problem(file, 0, "projectApi", found, "shared or dedicated"))
    centrals = {cell: _central_of(stacks[stack]) for cell, stack in _cells(stacks).items()}
    return {cell: by_central[central] for cell, central in centrals.items() if central in by_central}


class _Loaded:
    """A file that is valid in itself, and where its fields stand."""

    def __init__(self, file: str, document: CommentedMap, project: Project) -> None:
        self.file = file
        self.document = document
        self.project = project

    def problem(self, field: str, found: str, expected: str) -> Problem:
        return Problem(self.file, line_of(self.document, tuple(field.split("."))), field, found, expected)

    def names_of(self, kind: Literal["users", "teams"]) -> Iterator[tuple[str, tuple[int | str, ...]]]:
        """Every name of a kind, with the path at which it stands."""
        if kind == "users":
            yield from ((name, ("owners", index)) for index, name in enumerate(self.project.owners))
        by_role: dict[FractalOpsRole, list[str]] = getattr(self.project, kind)
        for role, names in by_role.items():
            yield from ((name, (kind, role.value, index)) for index, name in enumerate(names))


def _shown(path: Path, root: Path) -> str:
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _load(path: Path, file: str, problems: list[Problem]) -> _Loaded | None:
    document = parse_mapping(path, file, problems, first_key="slug")
    if document is None:
        return None
    try:
        project = Project.model_validate(document)
    except ValidationError as error:
        found = problems_of(error, file, Project, line_of=lambda path: line_of(document, path))
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


def _one_for_openbao(loaded: list[_Loaded]) -> Iterator[Problem]:
    """People, or teams, whose names differ in case alone: OpenBao takes them for one, with the access of both.

    It lowers the names of entities, groups and aliases before it compares them. Names of workloads, service accounts,
    groups and policies have no capitals here.
    """
    kinds: tuple[Literal["users", "teams"], ...] = ("users", "teams")
    for kind in kinds:
        spellings: defaultdict[str, dict[str, tuple[_Loaded, tuple[int | str, ...]]]] = defaultdict(dict)
        for item in loaded:
            for name, path in item.names_of(kind):
                spellings[name.lower()].setdefault(name, (item, path))
        for same in spellings.values():
            (first, (place, path)), *others = same.items()
            for name, (item, other) in others:
                where = f"{place.file}:{line_of(place.document, path)}"
                what = "people" if kind == "users" else "teams"
                expected = (
                    f"{first!r}, as {where} has it, or another name: OpenBao knows no case, so both {what} are one"
                )
                field = ".".join(map(str, other))
                yield Problem(item.file, line_of(item.document, other), field, repr(name), expected)


def _strays(loaded: list[_Loaded], cells: dict[str, str]) -> Iterator[Problem]:
    """Projects whose cell no stack has, so that they would be left out without a word."""
    for item in loaded:
        if cells and item.project.cell not in cells:
            expected = f"one of {', '.join(cells)}, or a new stacks/Pulumi.<stack>.yaml with this cell"
            yield item.problem("cell", repr(item.project.cell), expected)


def _missing_methods(loaded: list[_Loaded], stacks: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Workloads that sign in by a method that their central stack's settings do not have."""
    centrals = {cell: _central_of(stacks[stack]) for cell, stack in _cells(stacks).items()}
    for item in loaded:
        settings = stacks.get(centrals.get(item.project.cell, ""))
        if settings is None:
            continue  # nothing says what the environment has
        there = sorted(settings.get("workloadLogin") or {})
        for name, workload in item.project.workloads.items():
            if workload.method not in there:
                found = f"a sign-in that the environment does not offer (it offers: {', '.join(there) or 'none'})"
                expected = f"workloadLogin.{workload.method} in the central stack's settings, or no such workload"
                yield item.problem(f"workloads.{name}.{workload.method}", found, expected)


def _too_many_connections(loaded: list[_Loaded], connections: int | None) -> Iterator[Problem]:
    for item in loaded:
        found = item.project.limits.connections
        if connections is not None and found > connections:
            expected = f"at most {connections}, which the server has for all projects together"
            yield item.problem("limits.connections", str(found), expected)


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
