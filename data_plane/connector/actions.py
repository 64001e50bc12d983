"""The connector's actions: what each takes, what it gives back, and the edit of a project's file that it stands for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_plane.connector.project_files import ProjectFile
from data_plane.errors import ActionRefusedError
from data_plane.model.access import FractalOpsRole, levels_of
from data_plane.model.naming import SLUG_PATTERN, AccessLevel
from data_plane.model.problems import problems_of
from data_plane.model.projects import (
    Limits,
    ManagedService,
    Project,
    RealtimeSettings,
    SchemaName,
    SchemaSettings,
    SignUp,
    StorageSettings,
)
from data_plane.model.tenant_binding import TenantBinding

__all__ = [
    "ACTIONS",
    "AccessInputs",
    "ActionResult",
    "LeaseReference",
    "ProjectAccessInputs",
    "TeamAccessInputs",
    "UpsertInputs",
    "parsed_inputs",
    "supabase_role_of",
]

Slug = Annotated[str, Field(pattern=SLUG_PATTERN, description="The project.")]
Name = Annotated[str, Field(min_length=1, max_length=127)]
Role = Annotated[
    FractalOpsRole | None,
    Field(description="The one role that it has on the project from now on; null takes all access to it away."),
]


class _Inputs(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class UpsertInputs(_Inputs):
    """What every action has: a project, and an edit of its file."""

    action: ClassVar[str]
    creates: ClassVar[bool] = False
    """Whether the project may be a new one."""

    project: Slug

    def apply_to(self, file: ProjectFile) -> None:
        """Edits the project's file; doing so twice changes nothing more."""
        raise NotImplementedError

    @property
    def lease_level(self) -> AccessLevel | None:
        """The access level of the lease that is referred to; None for no access."""
        raise NotImplementedError


class ProjectAccessInputs(UpsertInputs):
    """Attach a project to the central Supabase, or change how it is attached.

    Fields that are not given stay as they are; for a new project they have the defaults of a project file.
    """

    action: ClassVar[str] = "upsert_database_project_access"
    creates: ClassVar[bool] = True

    display_name: Annotated[
        str | None, Field(description="The name shown to people; the slug's words for a new one.")
    ] = None
    cell: Annotated[str | None, Field(description="The cell of a new project; by default the first with room.")] = None
    owners: Annotated[
        list[Name] | None,
        Field(min_length=1, description="People with the role project_owner; a new project needs one."),
    ] = None
    managed_services: Annotated[
        list[ManagedService] | None, Field(min_length=1, description="The services that the project requires.")
    ] = None
    sign_up: Annotated[SignUp | None, Field(description="Who becomes a member; needs the service `auth`.")] = None
    storage: Annotated[
        StorageSettings | None, Field(description="The project's buckets; needs the service `storage`.")
    ] = None
    schemas: Annotated[
        dict[SchemaName, SchemaSettings] | None, Field(description="Its schemas beside the first one, by name.")
    ] = None
    realtime: Annotated[
        RealtimeSettings | None, Field(description="Broadcast and presence; needs the service `realtime`.")
    ] = None
    limits: Annotated[Limits | None, Field(description="What the project may take of the shared database.")] = None
    exposed: Annotated[bool | None, Field(description="Whether the schema is served through the API gateway.")] = None
    lifecycle: Annotated[
        Literal["attached", "detached"] | None,
        Field(description="`detached` ends all access and leases and keeps the data; `attached` undoes it."),
    ] = None

    def apply_to(self, file: ProjectFile) -> None:
        if file.before is None:
            file.set("slug", self.project)
            file.set("display_name", self.display_name or self.project.replace("-", " ").capitalize())
            file.set("cell", self.cell)
        elif self.display_name is not None:
            file.set("display_name", self.display_name)
        given = self.model_dump(
            mode="json", exclude={"project", "display_name", "cell"}, exclude_none=True, exclude_unset=True
        )
        for field, value in given.items():
            file.set(field, value)

    @property
    def lease_level(self) -> AccessLevel | None:
        return None if self.lifecycle == "detached" else supabase_role_of(FractalOpsRole.PROJECT_OWNER)


class TeamAccessInputs(UpsertInputs):
    """Give a team its role on a project, in place of any other that it has there."""

    action: ClassVar[str] = "upsert_database_team_access"

    team: Annotated[Name, Field(description="As the sign-in's group claim has it.")]
    role: Role

    def apply_to(self, file: ProjectFile) -> None:
        file.give("teams", self.team, self.role)

    @property
    def lease_level(self) -> AccessLevel | None:
        return supabase_role_of(self.role) if self.role else None


class AccessInputs(UpsertInputs):
    """Give a person a role on a project, in place of any other that they have there."""

    action: ClassVar[str] = "upsert_database_access"

    user: Annotated[Name, Field(description="Login name.")]
    role: Role

    def apply_to(self, file: ProjectFile) -> None:
        file.give("users", self.user, self.role)

    @property
    def lease_level(self) -> AccessLevel | None:
        return supabase_role_of(self.role) if self.role else None


class LeaseReference(_Inputs):
    """Where a person who was given access takes credentials, with their own token. Holds none."""

    level: Annotated[
        AccessLevel, Field(description="Strongest access level; the Supabase role of the FractalOps role.")
    ]
    levels: Annotated[list[AccessLevel], Field(description="All levels that may be leased, strongest first.")]
    openbao_address: Annotated[str, Field(description="OpenBao's URL.")]
    lease_path: Annotated[str, Field(description="Read with one's own token: a database login.")]
    token_path: Annotated[str | None, Field(description="Read with one's own token: an API token of 15 minutes.")]
    ttl_seconds: Annotated[int, Field(description="How long a lease lasts before it has to be renewed.")]
    max_ttl_seconds: Annotated[int, Field(description="How long it lasts at most, renewals included.")]


class ActionResult(_Inputs):
    """What an action did, or in a dry run would do."""

    action: str
    project: str
    environment: str
    dry_run: bool
    file: Annotated[str, Field(description="The project's data file, within the checkout. Commit it.")]
    edit: Annotated[list[str], Field(description="The change to that file, as a unified diff; empty if there is none.")]
    summary: Annotated[list[str], Field(description="What changes for the project, a sentence each, access first.")]
    changes: Annotated[list[str], Field(description="Resources created, updated or deleted, one a line.")]
    unchanged: Annotated[int, Field(description="Resources that were right already.")]
    binding: Annotated[
        dict[str, Any] | None, Field(description="What the project binds to; null in a dry run for a new project.")
    ]
    lease: Annotated[LeaseReference | None, Field(description="Null without access, and with a null binding.")]


ACTIONS: dict[str, type[UpsertInputs]] = {
    inputs.action: inputs for inputs in (ProjectAccessInputs, TeamAccessInputs, AccessInputs)
}


def parsed_inputs(action: str, inputs: Mapping[str, Any]) -> UpsertInputs:
    """The inputs of an action.

    Raises:
        ActionRefusedError: if there is no such action, or with everything that is wrong in its inputs.
    """
    if action not in ACTIONS:
        raise ActionRefusedError(f"there is no action {action!r}; there are: {', '.join(ACTIONS)}")
    model = ACTIONS[action]
    try:
        return model.model_validate(dict(inputs))
    except ValidationError as error:
        # pydantic quotes the inputs, which are anybody's and may hold a secret in the wrong place.
        found = problems_of(error, action, model)
        raise ActionRefusedError("\n".join(["nothing was done:", *(f"  {problem}" for problem in found)])) from None


def supabase_role_of(role: FractalOpsRole) -> AccessLevel:
    """The Supabase role that a FractalOps role maps to, so the strongest level of the API that it may lease."""
    return next(level for level in levels_of(role) if level is not AccessLevel.OWNER)


@dataclass(frozen=True)
class Granted:
    """A lease reference of a project at the level that an action gives."""

    project: Project
    inputs: UpsertInputs

    def reference(self, binding: TenantBinding) -> LeaseReference | None:
        """Where to lease; None without access."""
        level = self.inputs.lease_level
        if level is None or not binding.attached:
            return None
        role = getattr(self.inputs, "role", None) or FractalOpsRole.PROJECT_OWNER
        return LeaseReference(
            level=level,
            levels=list(levels_of(role)),
            openbao_address=binding.openbao_address,
            lease_path=binding.lease_paths[level],
            token_path=binding.token_paths.get(level),
            ttl_seconds=self.project.limits.lease_ttl,
            max_ttl_seconds=self.project.limits.lease_max_ttl,
        )
