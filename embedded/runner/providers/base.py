"""What a provider of the runner consists of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PARALLEL", "Handler", "Inputs", "Live", "Options", "ProviderClient", "differences"]

PARALLEL = 16
"""How many resources are applied at the same time."""

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Live:
    """A resource as it is on the server, under the names that its inputs have."""

    id: str
    properties: dict[str, Any] = field(default_factory=dict)
    differing: tuple[str, ...] | None = None
    """Where it is not as desired, if the server itself was asked; None: ``properties`` are compared with the inputs."""
    outputs: dict[str, Any] | None = None
    """The resource's outputs, if they are not its inputs and whatever else is in ``properties``."""


@dataclass(frozen=True)
class Options:
    """What a program says of a resource besides its inputs."""

    urn: str
    name: str
    ignored: frozenset[str] = frozenset()
    """Property paths of ``ignore_changes``."""
    secrets: frozenset[str] = frozenset()
    """Names of the inputs that are secret or contain a secret."""
    create_seconds: float | None = None
    """How long a creation may take, if the program says so."""
    update_seconds: float | None = None
    cancelled: Callable[[], bool] = lambda: False
    """Whether the run was interrupted, so that nothing is to be waited for."""


@dataclass(frozen=True)
class Handler:
    """How one type of resource is read and applied.

    ``apply`` is given the desired inputs and what is there now (None if nothing), makes the one like the other and
    returns nothing; the result is read again.
    """

    read: Callable[[Inputs], Live | None]
    apply: Callable[[Inputs, Live | None], None]
    unordered: Collection[str] = ()
    """Lists whose order has no meaning."""
    unreadable: Collection[str] = ()
    """Inputs that a server does not give back, or that have no effect on it; never a difference by themselves."""
    defaults: Inputs = field(default_factory=dict)
    """What inputs that a program leaves out stand for, where a server tells of them."""
    check: Callable[[Inputs], None] = lambda _desired: None
    """Asks the server in a preview whether it would take what is not there yet; raises if not."""
    wait: Callable[[Inputs], None] = lambda _desired: None
    """Returns once what is there can be used; raises if that takes too long."""


class ProviderClient(ABC):
    """The connection that one provider resource stands for.

    Args:
        inputs: the provider resource's inputs.
    """

    @abstractmethod
    def __init__(self, inputs: Inputs) -> None: ...

    @property
    @abstractmethod
    def handlers(self) -> Mapping[str, Handler]:
        """Handlers by type token."""

    def handler(self, type_: str, options: Options) -> Handler | None:
        """The handler of one resource, or None if this provider has none for its type."""
        return self.handlers.get(type_)

    def remarks(self) -> list[str]:
        """What to say at the end of a run that went well."""
        return []

    @property
    @abstractmethod
    def functions(self) -> Mapping[str, Callable[[Inputs], dict[str, Any]]]:
        """Functions by token."""

    @abstractmethod
    def explain(self, error: Exception) -> str | None:
        """What an error of this provider means, in one line without secrets; None if it is none of this provider's."""

    @abstractmethod
    def close(self) -> None:
        """Ends the connection."""


def differences(handler: Handler, desired: Inputs, live: Live, ignored: Collection[str]) -> list[str]:
    """The inputs in which a resource is not as desired.

    Args:
        ignored: property paths of ``ignore_changes``; ``a.b`` is the part ``b`` of the object ``a``.
    """
    if live.differing is not None:
        return list(live.differing)
    return [
        key
        for key, wanted in {**handler.defaults, **desired}.items()
        if key not in ignored
        and key not in handler.unreadable
        and _normal(key, wanted, handler, ignored) != _normal(key, live.properties.get(key), handler, ignored)
    ]


def _normal(key: str, value: Any, handler: Handler, ignored: Collection[str]) -> Any:
    if isinstance(value, list):
        return sorted(value) if key in handler.unordered else value
    if isinstance(value, dict):
        hidden = {*ignored, *handler.unreadable}
        return {part: item for part, item in value.items() if f"{key}.{part}" not in hidden}
    return value
