"""Auth takes over the table that a local environment has in its place."""

import re

from data_plane.local.environment import AUTH_TABLES

CREATED_FIRST = """
    instance_id id aud role email encrypted_password email_confirmed_at invited_at confirmation_token
    confirmation_sent_at recovery_token recovery_sent_at email_change_token_new email_change email_change_sent_at
    last_sign_in_at raw_app_meta_data raw_user_meta_data is_super_admin created_at updated_at
"""
"""Columns of auth.users that Auth's first migration creates, by the names that later ones give them.

Auth's other migrations refer to these and add all others with ``if not exists`` (github.com/supabase/auth, migrations/,
August 2026: all 70 run on the table).
"""


def test_the_table_has_every_column_that_auth_does_not_add_itself() -> None:
    columns = re.findall(r"^    ([a-z_]+) ", AUTH_TABLES.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(CREATED_FIRST.split()) <= set(columns)
