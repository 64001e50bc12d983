"""Serves the pack to the engine: ``pulumi preview --policy-pack policies``."""

import sys
from pathlib import Path

from pulumi_policy import EnforcementLevel, PolicyPack

# The engine runs this folder as a program, so the checkout that it is part of is not on the path yet.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from policies.pack import POLICIES

PolicyPack(name="supabase-data-plane", policies=POLICIES, enforcement_level=EnforcementLevel.MANDATORY)
