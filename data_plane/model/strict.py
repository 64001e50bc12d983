"""The base of all models of a stack's settings."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

__all__ = ["StrictModel"]


class StrictModel(BaseModel):
    """A group of settings: camelCase in YAML as everywhere in Pulumi, unknown keys refused, unchangeable."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True)
