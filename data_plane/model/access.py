"""FractalOps roles, mapped to the access levels of a tenant."""

from enum import StrEnum

from data_plane.model.naming import AccessLevel

__all__ = ["FractalOpsRole", "levels_of"]


class FractalOpsRole(StrEnum):
    """The roles that a person or a team can have on a project or on the solution it belongs to."""

    PROJECT_OWNER = "project_owner"
    MAINTAINER = "maintainer"
    SOLUTION_ADMIN = "solution_admin"
    PROJECT_CONTRIBUTOR = "project_contributor"
    TEAM_MEMBER = "team_member"
    SOLUTION_USER = "solution_user"
    PROJECT_VIEWER = "project_viewer"
    SOLUTION_VIEWER = "solution_viewer"


_SUPABASE_ROLE = {
    FractalOpsRole.PROJECT_OWNER: AccessLevel.SERVICE_ROLE,
    FractalOpsRole.MAINTAINER: AccessLevel.SERVICE_ROLE,
    FractalOpsRole.SOLUTION_ADMIN: AccessLevel.SERVICE_ROLE,
    FractalOpsRole.PROJECT_CONTRIBUTOR: AccessLevel.AUTHENTICATED,
    FractalOpsRole.TEAM_MEMBER: AccessLevel.AUTHENTICATED,
    FractalOpsRole.SOLUTION_USER: AccessLevel.AUTHENTICATED,
    FractalOpsRole.PROJECT_VIEWER: AccessLevel.ANON,
    FractalOpsRole.SOLUTION_VIEWER: AccessLevel.ANON,
}

_MIGRATES = frozenset({FractalOpsRole.PROJECT_OWNER, FractalOpsRole.MAINTAINER})
"""Who may change the schema itself. A solution's admin reaches all data of the solution's projects, not their DDL."""

_WEAKER = {
    AccessLevel.SERVICE_ROLE: (AccessLevel.SERVICE_ROLE, AccessLevel.AUTHENTICATED, AccessLevel.ANON),
    AccessLevel.AUTHENTICATED: (AccessLevel.AUTHENTICATED, AccessLevel.ANON),
    AccessLevel.ANON: (AccessLevel.ANON,),
}


def levels_of(role: FractalOpsRole) -> tuple[AccessLevel, ...]:
    """The levels that a FractalOps role may lease: the one it maps to and every weaker one, strongest first.

    Weaker ones are included so that one can ask for less than one may, e.g. to try a policy as
    ``anon``; nothing is gained by it.
    """
    levels = _WEAKER[_SUPABASE_ROLE[role]]
    return (AccessLevel.OWNER, *levels) if role in _MIGRATES else levels
