"""Texts that are secrets by their form."""

import base64
import json
import random
import string

LETTERS = string.ascii_letters + string.digits


def some(count: int, of: str = LETTERS) -> str:
    """Random characters, the same in every run."""
    return "".join(random.Random(count).choices(of, k=count))  # noqa: S311 no secret


def token(header: object, claims: object) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")

    return f"{part(header)}.{part(claims)}.{some(43)}"


HEX, UPPER = "0123456789abcdef", string.ascii_uppercase + string.digits


KNOWN = {
    "AWS": "AK" + "IA" + some(16, UPPER),
    "AWS, temporary": "AS" + "IA" + some(16, UPPER),
    "RSA key": "-----BEGIN RSA PRIV" + "ATE KEY-----\nMII",
    "PKCS #8 key": "-----BEGIN PRIV" + "ATE KEY-----",
    "PGP key": "-----BEGIN PGP PRIV" + "ATE KEY BLOCK-----",
    "age": "AGE-SECRET" + "-KEY-1" + some(58, UPPER),
    "GitHub": "gh" + "p_" + some(36),
    "GitHub, fine-grained": "github" + "_pat_" + some(82),
    "GitLab": "gl" + "pat-" + some(20),
    "Slack": "xo" + "xb-" + some(24),
    "Slack webhook": "https://hooks.slack.com/services/T" + some(9, UPPER) + "/B" + some(9, UPPER) + "/" + some(24),
    "Stripe": "sk" + "_live_" + some(24),
    "a model's API": "sk" + "-proj-" + some(48),
    "Google": "AI" + "za" + some(35),
    "Google client": "GOC" + "SPX-" + some(28),
    "npm": "npm" + "_" + some(36),
    "Python registry": "py" + "pi-" + some(60),
    "OpenBao service": "s" + "." + some(24),
    "OpenBao, prefixed": "hv" + "s." + some(90),
    "Supabase": "sb" + "_secret_" + some(22),
    "Supabase, personal": "sb" + "p_" + some(40, HEX),
    "SendGrid": "SG" + "." + some(22) + "." + some(43),
    "Twilio": "S" + "K" + some(32, HEX),
    "DigitalOcean": "do" + "p_v1_" + some(64, HEX),
    "Pulumi": "pu" + "l-" + some(40, HEX),
    "Azure": "AccountName=x;Account" + "Key=" + some(86) + "==",
    "service role": token({"alg": "HS256", "typ": "JWT"}, {"role": "service_role", "iss": "supabase"}),
    "signed by a key": token({"alg": "ES256", "kid": "1"}, {"sub": "someone"}),
    "PostgreSQL": "postgres://app:" + some(12) + "@db.example.com:5432/app",
    "Redis": "redis://:" + some(12) + "@cache:6379",
    "HTTP": "https://bot:" + some(12) + "@git.example.com/x.git",
    "in a sentence": "use " + "gh" + "s_" + some(36) + " for it",
}
