import pytest
from pydantic import ValidationError

from settings import Settings, problems_of, settings_or_exit

VENDORS = (
    "PUBLIC_URL",
    "STRIPE_SECRET_KEY",
    "STRIPE_WEBHOOK_SECRET",
    "STRIPE_API_BASE",
    "SENDGRID_API_KEY",
    "SENDGRID_API_BASE",
    "SENDGRID_WEBHOOK_KEY",
    "DUECOURSE_MAIL_FROM",
)
GOOD = {"DATABASE_URL": "postgresql://u:secret@host/name", "REDIS_URL": "redis://host:6379/0"}


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("DATABASE_URL", "mysql://u:secret@host/name", "must look like postgresql://user:"),
        ("REDIS_URL", "http://u:secret@host", "must look like redis://host:6379/0"),
        ("PORT", "secret", "must be a whole number"),
        ("PORT", "9" * 5_000, "must be a whole number"),
        ("PORT", "1.5", "must be a whole number"),
        ("PORT", "70000", "must be at most 65535"),
        ("DUECOURSE_LEASE_SECONDS", "secret", "must be a number"),
        ("DUECOURSE_LEASE_SECONDS", "0", "must be at least 1"),
        ("DUECOURSE_POLL_SECONDS", "0", "must be above 0"),
        ("DUECOURSE_LOG_LEVEL", "secret", "must be one of 'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("STRIPE_SECRET_KEY", "pk_live_secret", "must begin with sk_ or rk_"),
        ("STRIPE_SECRET_KEY", "sk_live_secret\n", "must be one word: no spaces or line breaks"),
        ("STRIPE_WEBHOOK_SECRET", "secret", "must begin with whsec_"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_one,secret", "must begin with whsec_"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_secret,", "must begin with whsec_"),
        ("DUECOURSE_STRIPE_RATE", "0", "must be above 0"),
        ("STRIPE_API_BASE", "api.secret.com", "must look like https://host or http://host:8000"),
        ("SENDGRID_API_KEY", "secret", "must begin with SG."),
        ("SENDGRID_API_BASE", "ftp://secret", "must look like https://host or http://host:8000"),
        ("SENDGRID_API_BASE", "http://", "must look like https://host or http://host:8000"),
        ("SENDGRID_WEBHOOK_KEY", "-- secret --", "must be the verification key that SendGrid"),
        ("PUBLIC_URL", "secret", "must look like https://host or http://host:8000"),
        ("DUECOURSE_MAIL_FROM", "Secret <secret@x>", "must be an email address, such as"),
    ],
)
def test_a_wrong_setting_is_named_with_what_it_must_be_and_without_its_value(
    name: str, value: str, complaint: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({**GOOD, name: value})
    told = problems_of(refused.value)
    assert told.startswith(f"{name}: {complaint}")
    assert "secret" not in told


def test_there_may_be_several_webhook_secrets() -> None:
    settings = Settings.model_validate({**GOOD, "STRIPE_WEBHOOK_SECRET": "whsec_one,whsec_two"})

    assert settings.stripe_webhook_secret is not None
    assert settings.stripe_webhook_secret.get_secret_value() == "whsec_one,whsec_two"
    assert settings.stripe_rate == 25


def test_a_process_without_its_settings_ends_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setenv("REDIS_URL", "nonsense")
    with pytest.raises(SystemExit) as end:
        settings_or_exit()
    assert end.value.code == 2
    assert capsys.readouterr().err == (
        "duecourse: settings: DATABASE_URL: is not set; "
        "REDIS_URL: must look like redis://host:6379/0\n"
    )


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VENDORS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize("given", [{}, dict.fromkeys(VENDORS, "")], ids=["not set", "empty"])
def test_without_vendors_there_are_no_keys_and_everything_else_has_a_value(
    given: dict[str, str],
) -> None:
    settings = Settings.model_validate({**GOOD, **given})
    assert settings.stripe_secret_key is None
    assert settings.stripe_webhook_secret is None
    assert settings.stripe_api_base is None
    assert settings.sendgrid_api_key is None
    assert settings.sendgrid_api_base is None
    assert settings.sendgrid_webhook_key is None
    assert settings.public_url == "http://127.0.0.1:8000"
    assert settings.mail_from == "billing@duecourse.example"


@pytest.mark.usefixtures("unset")
def test_a_vendors_secrets_are_kept_and_never_shown() -> None:
    secrets = {
        "STRIPE_SECRET_KEY": "sk_test_hush",
        "STRIPE_WEBHOOK_SECRET": "whsec_hush",
        "SENDGRID_API_KEY": "SG.hush",
    }
    settings = Settings.model_validate({**GOOD, **secrets})
    assert "hush" not in repr(settings)
    assert "hush" not in settings.model_dump_json()
    assert settings.stripe_secret_key is not None
    assert settings.stripe_secret_key.get_secret_value() == "sk_test_hush"


@pytest.mark.usefixtures("unset")
@pytest.mark.parametrize(
    ("key", "base"),
    [
        ("sk_test_x", "http://127.0.0.1:12111"),
        ("sk_live_x", "https://api.stripe.com"),
        ("rk_live_x", ""),
        ("", "http://127.0.0.1:12111"),
    ],
)
def test_a_key_goes_where_it_belongs(key: str, base: str) -> None:
    settings = Settings.model_validate(
        {**GOOD, "STRIPE_SECRET_KEY": key, "STRIPE_API_BASE": f"{base}/" if base else ""}
    )
    assert settings.stripe_api_base == (base or None)


@pytest.mark.parametrize("key", ["sk_live_secret", "rk_live_secret"])
@pytest.mark.parametrize(
    "base",
    [
        "http://127.0.0.1:12111",
        "http://api.stripe.com",
        "https://api.stripe.com.example",
        "https://notstripe.com",
        "https://api.stripe.com@example.com",
    ],
)
def test_a_live_key_is_sent_to_stripe_alone(key: str, base: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({**GOOD, "STRIPE_SECRET_KEY": key, "STRIPE_API_BASE": base})
    assert problems_of(refused.value) == (
        "STRIPE_API_BASE: must be https at stripe.com, or not set, while STRIPE_SECRET_KEY is a "
        "live key"
    )
