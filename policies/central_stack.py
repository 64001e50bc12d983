"""Placeholder."""

from pulumi_policy import Policy

POLICIES: list[Policy] = []
