"""What is taken for a secret, and what only looks like one. No secret of these tests stands here: they are put together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.secret_literals import known_secret, secret_in, secrets_in_command, secrets_in_text
from tests.support.secret_literals import HEX, KNOWN, LETTERS, some, token

UNKNOWN = {
    "no password": "postgres://app@db.example.com:5432/app",
    "a variable of Kubernetes": "postgres://app:$(PGPASSWORD)@db:5432/app",
    "a variable of a shell": "postgres://app:${PGPASSWORD}@db/app",
    "a variable without braces": "postgres://app:$PGPASSWORD@db/app",
    "a template": "postgres://app:{{ .password }}@db/app",
    "a placeholder": "postgres://app:<password>@db/app",
    "stars": "postgres://app:****@db/app",
    "a port": "http://auth.supabase.svc:9999/verify",
    "an address with an @ later": "http://example.com:80/?to=me@example.com",
    "anon": token({"alg": "HS256", "typ": "JWT"}, {"role": "anon", "iss": "supabase"}),
    "publishable": "sb_publishable_" + some(22),
    "a certificate": "-----BEGIN CERTIFICATE-----\nMII",
    "a public key": "-----BEGIN PUBLIC KEY-----",
    "a digest": "sha256:" + some(64, HEX),
    "a commit": some(40, HEX),
    "a UUID": "6f2c1d70-7b0e-4a52-9a53-0d4f6b1c2e3d",
    "a domain": "s.example.com",
    "words": "sk-learn is a library of Python",
    "an identifier": "ghp_is_what_tokens_begin_with",
}


@pytest.mark.parametrize("text", KNOWN.values(), ids=KNOWN)
def test_a_known_secret_is_known_by_its_looks(text: str) -> None:
    assert known_secret(text)
    assert known_secret(f'{{"x": "{text}"}}')


@pytest.mark.parametrize("text", UNKNOWN.values(), ids=UNKNOWN)
def test_what_is_no_secret_is_let_be(text: str) -> None:
    assert known_secret(text) == ""
    assert secret_in("ANYTHING", text) == ""


NAMED = [
    ("POSTGRES_PASSWORD", "postgres"),
    ("DB_PASSWORD", "changeme"),
    ("dbPassword", "hunter2x"),
    ("REDIS_PASSWD", "q"),
    ("rootPassphrase", "correct horse battery staple"),
    ("PASSWORD", "letmein!"),
    ("GOTRUE_JWT_SECRET", "super-secret-jwt-token-with-at-least-32-characters-long"),
    ("SECRET_KEY_BASE", some(64)),
    ("API_KEY", some(20)),
    ("apiKey", "abc12345"),
    ("S3_SECRET_ACCESS_KEY", some(40)),
    ("VAULT_ENC_KEY", "your-encryption-key-32-chars-min"),
    ("SERVICE_ROLE_KEY", some(30)),
    ("LOGFLARE_API_KEY", some(32, HEX)),
    ("WEBHOOK_TOKEN", "6f2c1d70-7b0e-4a52-9a53-0d4f6b1c2e3d"),
    ("PASSWORD_SALT", some(16)),
    ("SENTRY_DSN", "a1b2c3d4e5"),
    ("DATA", some(64)),
    ("X", some(48) + "=="),
]

ABOUT = [
    ("POSTGRES_PASSWORD_FILE", "/run/secrets/password"),
    ("POSTGRES_PASSWORD", ""),
    ("POSTGRES_PASSWORD", "$(DB_PASSWORD)"),
    ("POSTGRES_PASSWORD", "${DB_PASSWORD:?required}"),
    ("POSTGRES_PASSWORD", "{{ .Values.password }}"),
    ("POSTGRES_PASSWORD", "<password>"),
    ("POSTGRES_PASSWORD", "********"),
    ("PGPASSFILE", "/pass/file"),
    ("SECRET_NAME", "supabase-database-credentials1"),
    ("tokenSecretRef", "supabase-database-token-2024"),
    ("AWS_ACCESS_KEY_ID", "not-an-id-of-anything-1"),
    ("GOTRUE_PASSWORD_MIN_LENGTH", "12"),
    ("GOTRUE_PASSWORD_REQUIRED_CHARACTERS", "abcdefghijklmnopqrstuvwxyz:0123456789"),
    ("GOTRUE_SECURITY_REFRESH_TOKEN_ROTATION_ENABLED", "true"),
    ("GOTRUE_SECURITY_REFRESH_TOKEN_REUSE_INTERVAL", "10"),
    ("TOKEN_ISSUER", "https://bao.example.com/v1/identity/oidc"),
    ("TOKEN_AUDIENCE", "supabase-data-plane-api1"),
    ("TOKEN_TTL", "15m"),
    ("ACCESS_TOKEN_LIFETIME", "3600"),
    ("SUPABASE_ANON_KEY", some(40)),
    ("SUPABASE_PUBLISHABLE_KEY", "sb_publishable_" + some(22)),
    ("JWT_PUBLIC_KEY", some(44)),
    ("SECRETS_MOUNT", "connectors/supabase/database"),
    ("IMAGE", "registry.example.com/app@sha256:" + some(64, HEX)),
    ("COMMIT", some(40, HEX)),
    ("BUILD_ID", some(64, HEX)),
    ("TRACE", "6f2c1d70-7b0e-4a52-9a53-0d4f6b1c2e3d"),
    ("KEYBOARD", "qwertyuiopasdfghjklzxcvbnm0123456789"),
    ("PYTHONPATH", "/usr/local/lib/python3.11/site-packages:/opt/App/Modules/Version2"),
    ("JAVA_OPTS", "-XX:+UseG1GC -XX:MaxGCPauseMillis=200 -Dcom.sun.management.jmxremote"),
    ("CLASS", "com.example.company.product.ApplicationContextInitializerFactory2"),
    ("TOKEN", "short"),
    ("SECRET_PROVIDER_CLASS", "supabase-secrets-provider-1"),
    ("MONKEY", "business as usual in 2026"),
]


@pytest.mark.parametrize(("name", "value"), NAMED)
def test_a_secret_is_known_by_its_name_or_how_random_it_is(name: str, value: str) -> None:
    kind = secret_in(name, value)
    assert kind
    assert value not in kind


@pytest.mark.parametrize(("name", "value"), ABOUT)
def test_what_is_about_a_secret_or_stands_for_one_is_none(name: str, value: str) -> None:
    assert secret_in(name, value) == ""


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["app", "--password=letmein1"], ["password"]),
        (["app", "--db-password", "letmein1"], ["--db-password"]),
        (["sh", "-c", "PGPASSWORD=letmein1 psql -h db"], ["PGPASSWORD"]),
        (["sh", "-c", "export API_KEY='abc12345def'; run"], ["API_KEY"]),
        (["curl", "-H", "Authorization: Bearer " + KNOWN["OpenBao, prefixed"]], [""]),
        (["psql", KNOWN["PostgreSQL"]], [""]),
        (["app", "--password-file=/run/secrets/db"], []),
        (["app", "--password=$(DB_PASSWORD)"], []),
        (["app", "--token-ttl", "15m", "--secret-name", "app-secrets-1"], []),
        (["psql", "--no-password", "--host", "db"], []),
        (["sh", "-c", 'PGPASSWORD="$(cat /run/secrets/db)" psql'], []),
        (["sh", "-c", "PGPASSWORD=$$password psql"], []),
        (["sh", "-c", "PGPASSWORD=$$2 psql"], ["PGPASSWORD"]),  # could be the beginning of a hash
        (["app", "--password", "--verbose"], []),
        (["curl", "-u", "admin:letmein1", "https://db"], ["-u"]),
        (["curl", "-uadmin:letmein1", "https://db"], ["-u"]),
        (["curl", "-u", "admin:$PASSWORD", "https://db"], []),
        (["curl", "--user-agent", "a:b"], []),
        (["curl", "--user-agent=a:b", "--user=admin:letmein1"], ["--user"]),
        (["mysqldump", "-u", "root", "-pletmein1", "shop"], ["-p"]),
        (
            ["sh", "-c", "mkdir -p /dump && /usr/bin/mysqldump -uroot -p'letmein1' shop | mysql -pother shop"],
            ["-p", "-p"],
        ),
        (["sh", "-c", "mysql -p < /x.sql\nmkdir -p /dump"], []),
        (["mysql", "-p", "shop"], []),
        (["mysql", "-p$MYSQL_PASSWORD", "-P3306"], []),
        (["sh", "-c", 'mysqladmin ping -p"$(cat /run/secrets/db)"'], []),
        (["kubectl", "exec", "db", "--", "redis-cli", "-a", "letmein1", "ping"], ["-a"]),
        (["mongosh", "-p", "letmein1"], ["-p"]),
        (["sshpass", "-pletmein1", "ssh", "-p", "22", "db"], ["-p"]),
        (["redis-cli", "-a", "$(REDIS_PASSWORD)", "ping"], []),
    ],
)
def test_a_command_is_searched_by_its_options(words: list[str], names: list[str]) -> None:
    assert [name for name, _ in secrets_in_command(words)] == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("host: db\npassword: letmein1\n", ["password"]),
        ("[database]\npassword = 'letmein1'\n", ["password"]),
        ('{\n  "apiKey": "abc12345def",\n  "port": 1\n}', ["apiKey"]),
        ("DB_PASSWORD=letmein1\nDB_HOST=db\n", ["DB_PASSWORD"]),
        ("key: |\n  " + KNOWN["RSA key"], [""]),
        ("password: ${DB_PASSWORD}\ntoken: {{ .token }}\n", []),
        ("passwordSecretRef:\n  name: supabase\n  key: PASSWORD\n", []),
        ("local token = kong.request.get_header('x')\ntoken = header\n", []),
        ("password_encryption = scram-sha-256\nssl = on\n", []),
        ("alter role x with password :'password';\n", []),
        ("# password: what it is called\n", []),
    ],
)
def test_a_file_is_searched_line_by_line(text: str, names: list[str]) -> None:
    assert [name for name, _ in secrets_in_text(text)] == names


@given(st.text(alphabet=LETTERS + "-_+/=!", min_size=8, max_size=80))
def test_what_is_found_is_never_told(value: str) -> None:
    for name in ("DB_PASSWORD", "API_KEY", "DATA"):
        kind = secret_in(name, value)
        assert value not in kind


@given(st.binary(min_size=16, max_size=64))
def test_random_bytes_under_a_secrets_name_are_always_found(value: bytes) -> None:
    assert secret_in("DB_PASSWORD", value.hex() + "x")
    assert secret_in("API_TOKEN", value.hex() + "x")


@given(st.lists(st.from_regex(r"[a-z]{1,12}", fullmatch=True), min_size=1, max_size=30))
def test_plain_words_are_never_found(words: list[str]) -> None:
    assert secret_in("DESCRIPTION", " ".join(words)) == ""
    assert list(secrets_in_text(" ".join(words))) == []


@given(st.text(max_size=300))
def test_any_text_is_searched_without_an_error(text: str) -> None:
    known_secret(text)
    list(secrets_in_text(text))
    list(secrets_in_command(text.split(" ")))
