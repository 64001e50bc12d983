"""What a provider of the runner consists of."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Handler", "Inputs", "Live", "ProviderClient", "differences"]

Inputs = Mapping[str, Any]


@dataclass(frozen=True)
class Live:
    """A resource as it is on the server, under the names that its inputs have."""

    id: str
    properties: dict[str, Any] = field(default_factory=dict)


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
    return [
        key
        for key, wanted in desired.items()
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
