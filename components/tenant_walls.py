"""The former path of :mod:`components.privilege_drift`, by which the states of stacks name its provider."""

from components.privilege_drift import _Provider

__all__ = ["_Provider"]
