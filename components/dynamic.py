"""The base of the dynamic providers: what a resource's properties say is applied, in place, whenever it differs."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pulumi.dynamic import CreateResult, DiffResult, ResourceProvider, UpdateResult

__all__ = ["ApplyingProvider"]


class ApplyingProvider(ResourceProvider):
    """Creates and updates by :meth:`apply`.

    Pulumi keeps an instance's class by its path in the stack's state, so a subclass stays in its module, and an
    instance holds nothing.
    """

    inputs: ClassVar[tuple[str, ...]]
    """The properties whose change is applied."""
    identity: ClassVar[tuple[str, ...]] = ()
    """Those whose change makes another resource of it."""

    def id_of(self, props: Mapping[str, Any]) -> str:
        """The resource's ID."""
        raise NotImplementedError

    def apply(self, props: dict[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
        """Makes it as the properties say.

        Args:
            before: the outputs of the last time; none if it is new.

        Returns:
            The outputs, with all that :meth:`read` needs.
        """
        raise NotImplementedError

    def is_current(self, olds: Mapping[str, Any], news: Mapping[str, Any]) -> bool:
        """Whether what is there is as the same inputs would make it."""
        return True

    def value_of(self, props: Mapping[str, Any], name: str) -> Any:
        """A property as it is compared."""
        return props.get(name)

    def create(self, props: dict[str, Any]) -> CreateResult:
        return CreateResult(id_=self.id_of(props), outs=self.apply(props, {}))

    def update(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> UpdateResult:
        return UpdateResult(outs=self.apply(news, olds))

    def diff(self, _id: str, olds: dict[str, Any], news: dict[str, Any]) -> DiffResult:
        def differ(names: tuple[str, ...]) -> list[str]:
            return [name for name in names if self.value_of(olds, name) != self.value_of(news, name)]

        replaces = differ(self.identity)
        changes = bool(replaces or differ(self.inputs)) or not self.is_current(olds, news)
        return DiffResult(changes=changes, replaces=replaces, stables=[])
