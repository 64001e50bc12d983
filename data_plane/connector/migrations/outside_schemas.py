"""Statements and kinds of object that are not of a schema, and what each is refused for."""

from collections.abc import Mapping

from pglast import enums

from data_plane.connector.migrations.scope import Rule

__all__ = ["ABOUT_ROLES", "DROPPED", "HINTS_ON_ROLES", "OF_THE_SERVER", "OUTSIDE_OF_SCHEMAS"]

HINTS_ON_ROLES = {
    "supabase_auth_admin": ": Auth's hooks are the platform's, so leave the grant out. What a token claims of a person "
    "comes from the project's file (`users`, `teams`); more of it belongs in a table that policies read",
    "authenticator": ": it is the login of everybody's PostgREST, and a setting of it would be every project's",
}
"""What to do instead of naming a role of the platform's."""

OF_THE_SERVER: Mapping[str, tuple[Rule, str]] = {
    "AlterDatabaseSetStmt": (Rule.SERVER, "alter database"),
    "AlterDatabaseStmt": (Rule.SERVER, "alter database"),
    "AlterEventTrigStmt": (Rule.SERVER, "alter event trigger"),
    "AlterExtensionContentsStmt": (Rule.EXTENSIONS, "alter extension"),
    "AlterExtensionStmt": (Rule.EXTENSIONS, "alter extension"),
    "AlterFdwStmt": (Rule.SERVER, "alter foreign data wrapper"),
    "AlterPublicationStmt": (Rule.REALTIME, "alter publication"),
    "AlterRoleSetStmt": (Rule.ROLES, "alter role"),
    "AlterRoleStmt": (Rule.ROLES, "alter role"),
    "AlterSubscriptionStmt": (Rule.SERVER, "alter subscription"),
    "AlterSystemStmt": (Rule.SERVER, "alter system"),
    "CreateEventTrigStmt": (Rule.SERVER, "create event trigger"),
    "CreateFdwStmt": (Rule.SERVER, "create foreign data wrapper"),
    "CreateForeignServerStmt": (Rule.SERVER, "create server"),
    "CreatePLangStmt": (Rule.EXTENSIONS, "create language"),
    "CreatePublicationStmt": (Rule.REALTIME, "create publication"),
    "CreateRoleStmt": (Rule.ROLES, "create role"),
    "CreateSubscriptionStmt": (Rule.SERVER, "create subscription"),
    "CreateTableSpaceStmt": (Rule.SERVER, "create tablespace"),
    "CreateUserMappingStmt": (Rule.SERVER, "create user mapping"),
    "CreatedbStmt": (Rule.SERVER, "create database"),
    "DropOwnedStmt": (Rule.ROLES, "drop owned"),
    "DropRoleStmt": (Rule.ROLES, "drop role"),
    "DropSubscriptionStmt": (Rule.SERVER, "drop subscription"),
    "DropdbStmt": (Rule.SERVER, "drop database"),
    "GrantRoleStmt": (Rule.ROLES, "membership of a role"),
    "LoadStmt": (Rule.SERVER, "load"),
    "ReassignOwnedStmt": (Rule.ROLES, "reassign owned"),
    "SecLabelStmt": (Rule.SERVER, "security label"),
}
DROPPED = {
    enums.ObjectType.OBJECT_EXTENSION: Rule.EXTENSIONS,
    enums.ObjectType.OBJECT_PUBLICATION: Rule.REALTIME,
    enums.ObjectType.OBJECT_EVENT_TRIGGER: Rule.SERVER,
    enums.ObjectType.OBJECT_FOREIGN_SERVER: Rule.SERVER,
    enums.ObjectType.OBJECT_FDW: Rule.SERVER,
    enums.ObjectType.OBJECT_ROLE: Rule.ROLES,
    enums.ObjectType.OBJECT_DATABASE: Rule.SERVER,
    enums.ObjectType.OBJECT_LANGUAGE: Rule.EXTENSIONS,
}
"""Kinds of object that are nobody's schema's: to drop, rename, comment on or give away."""

ABOUT_ROLES = frozenset({kind for kind, (boundary, _) in OF_THE_SERVER.items() if boundary is Rule.ROLES})
"""Statements that are refused for what they do, whichever role they name."""

OUTSIDE_OF_SCHEMAS = frozenset(
    {
        enums.ObjectType.OBJECT_DATABASE,
        enums.ObjectType.OBJECT_FDW,
        enums.ObjectType.OBJECT_FOREIGN_SERVER,
        enums.ObjectType.OBJECT_LANGUAGE,
        enums.ObjectType.OBJECT_TABLESPACE,
        enums.ObjectType.OBJECT_PARAMETER_ACL,
    }
)
