"""What all policies are made of: a resource as they see it, and how a check becomes a CrossGuard policy."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    Severity,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.deserialize import serialize_properties

from policies.texts import UncheckedError

__all__ = ["Config", "Finding", "Resource", "resource_policy", "stack_policy"]

_UNREADABLE = (UncheckedError, RecursionError, TypeError, AttributeError, ValueError, KeyError, IndexError)
"""What properties of the wrong type, or larger than anybody writes, end a check with."""

_FOLDER = "renderYamlToDirectory"
"""The input of the Kubernetes provider that lets it write manifests instead of applying them."""
DOCUMENTATION = "docs/reference/policies.md"

Config = Mapping[str, Any]
"""A policy's configuration, with the defaults of its schema filled in."""


@dataclass(frozen=True)
class Resource:
    """A resource as policies see it.

    Its properties are plain dictionaries and lists. A value that is not known in a preview is there all the same
    (see :func:`is_unknown`): the SDK's own proxies would end the whole policy at the first one, with advice instead of
    a refusal, and so let everything else about the resource pass. They are made only for a policy that looks at them,
    which most do at few types: it is most of what a policy costs.
    """

    type: str
    name: str
    urn: str
    protect: bool
    _given: Mapping[str, Any]
    depends_on: frozenset[str] = frozenset()
    """The URNs of what its properties come from; known to policies on the whole stack only."""
    rendered: bool = False
    """Whether it is only written into a folder of manifests."""

    @classmethod
    def of(cls, args: ResourceValidationArgs | PolicyResource) -> "Resource":
        """The resource that the SDK hands to a policy."""
        depends_on = frozenset[str]()
        if isinstance(args, PolicyResource):
            found = [
                *args.dependencies,
                *(entry for entries in args.property_dependencies.values() for entry in entries),
            ]
            depends_on = frozenset(entry.urn for entry in found)
        rendered = args.provider is not None and isinstance(args.provider.props.get(_FOLDER), str)
        return cls(args.resource_type, args.name, args.urn, bool(args.opts.protect), args.props, depends_on, rendered)

    @cached_property
    def properties(self) -> Mapping[str, Any]:
        """What the resource is given."""
        return dict(serialize_properties(self._given))

    @cached_property
    def _urn_parts(self) -> tuple[str, str, tuple[str, ...]]:
        # urn:pulumi:<stack>::<project>::<type>$<type>$…::<name>, computed by the engine, never given by a program.
        stack, project, types, *_ = [*self.urn.removeprefix("urn:pulumi:").split("::"), "", "", ""]
        return stack, project, tuple(types.split("$"))

    @property
    def stack(self) -> str:
        """The stack, as the engine wrote it into the URN."""
        return self._urn_parts[0]

    @property
    def project(self) -> str:
        """The Pulumi project, from the URN."""
        return self._urn_parts[1]

    @property
    def parent_types(self) -> tuple[str, ...]:
        """The types of the components that the resource is in, outermost first."""
        return self._urn_parts[2][:-1]


@dataclass(frozen=True)
class Finding:
    """What a stack policy has against one resource, or (without one) against the stack."""

    message: str
    urn: str | None = None


def resource_policy(
    name: str,
    description: str,
    check: Callable[[Resource, Config], Iterable[str]],
    *,
    instead: str,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    level: EnforcementLevel = EnforcementLevel.MANDATORY,
    severity: Severity = Severity.HIGH,
) -> ResourceValidationPolicy:
    """A policy on single resources.

    Args:
        name: what it is called; its section in ``docs/reference/policies.md`` has the same name.
        check: yields one sentence for each thing that is wrong, none where all is right.
        instead: what to do about it; ends every message.
        settings: JSON Schema of each setting that it takes, each with a default.
    """

    def validate(args: ResourceValidationArgs, report: ReportViolation) -> None:
        try:
            for message in check(Resource.of(args), _with_defaults(args.get_config(), settings)):
                report(f"{message}. {instead}", None)
        except _UNREADABLE as error:
            report(_unchecked(args.resource_type, error), None)

    return ResourceValidationPolicy(
        name=name,
        description=description,
        validate=validate,
        enforcement_level=level,
        config_schema=_schema(settings),
        severity=severity,
        remediation_steps=instead,
        url=f"{DOCUMENTATION}#{name}",
    )


def stack_policy(
    name: str,
    description: str,
    check: Callable[[Sequence[Resource], Config], Iterable[Finding]],
    *,
    instead: str,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    level: EnforcementLevel = EnforcementLevel.MANDATORY,
    severity: Severity = Severity.HIGH,
) -> StackValidationPolicy:
    """A policy on all resources of a stack together; otherwise as :func:`resource_policy`."""

    def validate(args: StackValidationArgs, report: ReportViolation) -> None:
        resources = [Resource.of(resource) for resource in args.resources]
        try:
            for finding in check(resources, _with_defaults(args.get_config(), settings)):
                report(f"{finding.message}. {instead}", finding.urn)
        except _UNREADABLE as error:
            report(_unchecked("the stack", error), None)

    return StackValidationPolicy(
        name=name,
        description=description,
        validate=validate,
        enforcement_level=level,
        config_schema=_schema(settings),
        severity=severity,
        remediation_steps=instead,
        url=f"{DOCUMENTATION}#{name}",
    )


def _unchecked(what: str, error: Exception) -> str:
    """What is said of a resource that no policy can make sense of: it is refused, with what to mend."""
    why = (
        error.problem.message
        if isinstance(error, UncheckedError)
        else "a property has not the type that it should have"
    )
    return (
        f"{what} cannot be checked, so it is refused: {why}. Give its properties the types that its documentation says"
    )


def _schema(settings: Mapping[str, Mapping[str, Any]] | None) -> PolicyConfigSchema | None:
    return PolicyConfigSchema(properties={key: dict(value) for key, value in settings.items()}) if settings else None


def _with_defaults(given: Config | None, settings: Mapping[str, Mapping[str, Any]] | None) -> Config:
    defaults = {key: schema["default"] for key, schema in (settings or {}).items() if "default" in schema}
    return {**defaults, **(given or {})}
