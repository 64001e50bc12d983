"""Realtime's own secrets, as Erlang's crypto seals them."""

import pytest

from data_plane.model.realtime_cipher import seal, unseal

KEY = "0123456789abcdef" * 2
FROM_ERLANG = "g1:f+qNFgC2Hwl3NWiqos9eNffS8nDQ6UzhC0Z1xrE8I8IbZ20YMCPRuA=="
"""What Erlang 25 made with this key (crypto:crypto_one_time_aead, aes_256_gcm, nonce of 12 bytes, tag of 16)."""


def test_what_erlang_sealed_is_opened() -> None:
    assert unseal(KEY, FROM_ERLANG) == "host.example"


@pytest.mark.parametrize("text", ["", "x", "proj_x$realtime", "ü" * 40])
def test_what_is_sealed_is_opened_with_the_same_key_alone(text: str) -> None:
    sealed = seal(KEY, text)
    assert unseal(KEY, sealed) == text
    assert unseal("f" * 32, sealed) is None
    assert sealed != seal(KEY, text), "a nonce is used once"


@pytest.mark.parametrize(
    "sealed", [None, "", "g1:", "g1:%%", "g1:QUJD", FROM_ERLANG[:-4], FROM_ERLANG[3:], FROM_ERLANG.replace("g1", "g2")]
)
def test_anything_else_is_not_opened(sealed: str | None) -> None:
    assert unseal(KEY, sealed) is None
