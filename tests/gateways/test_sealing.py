import pytest

from gateways.sealing import Seal, SealBroken

KEY = "a-secret-key-of-the-deployment-s"


def test_what_is_sealed_is_opened_by_the_same_key_alone() -> None:
    sealed = Seal(KEY).close("sk_live_1")

    assert Seal(KEY).open(sealed) == "sk_live_1"
    assert "sk_live_1" not in sealed
    assert Seal(KEY).close("sk_live_1") != sealed
    with pytest.raises(SealBroken, match="another SECRET_KEY"):
        Seal(KEY + "!").open(sealed)


@pytest.mark.parametrize("changed", ["", "no seal", "gAAAA"])
def test_what_is_not_whole_is_not_opened(changed: str) -> None:
    with pytest.raises(SealBroken):
        Seal(KEY).open(changed)
