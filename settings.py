"""Process configuration, read once from the environment."""

import binascii
import re
import sys
from collections.abc import Callable
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict


def _database_url(text: str) -> str:
    """A PostgreSQL address in the form the driver takes; Heroku's ``postgres://`` too."""
    if not _is_address(text, "postgres", "postgresql", "postgresql+psycopg"):
        raise PydanticCustomError("url", "must look like postgresql://user:password@host:5432/name")
    return f"postgresql+psycopg://{text.partition('://')[2]}"


def _redis_url(text: str) -> str:
    if text.startswith("redis+sentinel:"):
        if not _SENTINELS.fullmatch(text):
            raise PydanticCustomError(
                "url", "must look like redis+sentinel://:password@host:26379,host2:26379/name/0"
            )
    elif not _is_address(text, "redis", "rediss", "unix"):
        raise PydanticCustomError("url", "must look like redis://host:6379/0")
    return text


def _web_address(text: str) -> str:
    """An address that paths are added to."""
    if not _is_address(text, "http", "https") or not urlsplit(text).hostname:
        raise PydanticCustomError("url", "must look like https://host or http://host:8000")
    return text.rstrip("/")


def _email(text: str) -> str:
    if not _EMAIL.fullmatch(text):
        raise PydanticCustomError("email", "must be an email address, such as billing@example.com")
    return text


def _beginning_with(*beginnings: str) -> Callable[[SecretStr | None], SecretStr | None]:
    """A check of a secret, which tells what one looks like and nothing of the one it was given."""

    def check(secret: SecretStr | None) -> SecretStr | None:
        if secret is None:
            return None
        text = secret.get_secret_value()
        if not text.startswith(beginnings):
            raise PydanticCustomError(
                "secret", "must begin with {beginning}", {"beginning": " or ".join(beginnings)}
            )
        if not _ONE_WORD.fullmatch(text):
            raise PydanticCustomError("secret", "must be one word: no spaces or line breaks")
        return secret

    return check


def _each_beginning_with(beginning: str) -> Callable[[SecretStr | None], SecretStr | None]:
    """The same check of each of the secrets between commas."""
    check_one = _beginning_with(beginning)

    def check(secrets: SecretStr | None) -> SecretStr | None:
        if secrets is not None:
            for secret in secrets.get_secret_value().split(","):
                check_one(SecretStr(secret))
        return secrets

    return check


def _long_secret(secret: SecretStr | None) -> SecretStr | None:
    """A secret that cannot be guessed, to sign and to seal with."""
    if secret is not None and len(secret.get_secret_value()) < MIN_SECRET_CHARACTERS:
        raise PydanticCustomError(
            "secret",
            "must have at least {least} characters: python3 -c 'import secrets; "
            "print(secrets.token_urlsafe(32))' makes one",
            {"least": MIN_SECRET_CHARACTERS},
        )
    return secret


def _public_key(text: str) -> str:
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise PydanticCustomError(
            "key", "must be the verification key that SendGrid shows: base64 in one line"
        ) from None
    return text


def _is_stripes_own(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return parts.scheme == "https" and (host == "stripe.com" or host.endswith(".stripe.com"))


def _is_address(text: str, *schemes: str) -> bool:
    """Whether it has one of the schemes, says where, and has a port that can be one.

    A password with a slash in it, not written as %2F, is seen here as a port that is none.
    """
    try:
        parts = urlsplit(text)
        return parts.scheme in schemes and bool(parts.netloc or parts.path) and parts.port != 0
    except ValueError:
        return False


_EMAIL = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")
_SENTINELS = re.compile(
    r"redis\+sentinel://([^@/]*@)?[^@/,:]+(:\d{1,5})?(,[^@/,:]+(:\d{1,5})?)*/[^/]+(/\d+)?"
)
MIN_SECRET_CHARACTERS = 32
_ONE_WORD = re.compile(r"[!-~]+")
_LIVE_KEYS = ("sk_live_", "rk_live_")

# A setting that is there and empty, as deployments leave those they have no value for.
_NoneIfEmpty = BeforeValidator(lambda value: value or None)

_StripeKey = Annotated[
    SecretStr | None, _NoneIfEmpty, AfterValidator(_beginning_with("sk_", "rk_"))
]
_StripeWebhookSecret = Annotated[
    SecretStr | None, _NoneIfEmpty, AfterValidator(_each_beginning_with("whsec_"))
]
_SendGridKey = Annotated[SecretStr | None, _NoneIfEmpty, AfterValidator(_beginning_with("SG."))]
_SecretKey = Annotated[SecretStr | None, _NoneIfEmpty, AfterValidator(_long_secret)]
_VendorAddress = Annotated[Annotated[str, AfterValidator(_web_address)] | None, _NoneIfEmpty]
_PublicKey = Annotated[Annotated[str, AfterValidator(_public_key)] | None, _NoneIfEmpty]

PUBLIC_URL = "http://127.0.0.1:8000"
MAIL_FROM = "billing@duecourse.example"

# For people who run the system; pydantic's own words are for people who program it.
_WORDINGS = {
    "missing": "is not set",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number",
    "float_parsing": "must be a number",
    "literal_error": "must be one of {expected}",
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than_equal": "must be at most {le:g}",
}


class Settings(BaseSettings):
    """Every knob of the system. Durations are in seconds.

    Of Stripe and SendGrid, an address that is ``None`` means their own, and a key that is ``None``
    means that nothing is asked of them.
    """

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True)

    database_url: Annotated[str, AfterValidator(_database_url)] = Field(alias="DATABASE_URL")
    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(alias="REDIS_URL")
    host: str = Field(default="127.0.0.1", alias="DUECOURSE_HOST")
    port: int = Field(default=8000, ge=1, le=65535, alias="PORT")
    # Where clients and vendors reach the HTTP API: what links in mails begin with.
    public_url: Annotated[
        str, BeforeValidator(lambda value: value or PUBLIC_URL), AfterValidator(_web_address)
    ] = Field(default=PUBLIC_URL, alias="PUBLIC_URL")
    # Signs the links that clients are sent.
    secret_key: _SecretKey = Field(default=None, alias="SECRET_KEY")
    stripe_secret_key: _StripeKey = Field(default=None, alias="STRIPE_SECRET_KEY")
    # One, or several with commas between: of the account's endpoint and of the one for connected
    # accounts, or an old one and a new.
    stripe_webhook_secret: _StripeWebhookSecret = Field(default=None, alias="STRIPE_WEBHOOK_SECRET")
    stripe_api_base: _VendorAddress = Field(default=None, alias="STRIPE_API_BASE")
    # What each Stripe account may be asked to create a second, by all processes together.
    stripe_rate: float = Field(default=25, gt=0, le=10_000, alias="DUECOURSE_STRIPE_RATE")
    sendgrid_api_key: _SendGridKey = Field(default=None, alias="SENDGRID_API_KEY")
    sendgrid_api_base: _VendorAddress = Field(default=None, alias="SENDGRID_API_BASE")
    # Public: it verifies what SendGrid signs.
    sendgrid_webhook_key: _PublicKey = Field(default=None, alias="SENDGRID_WEBHOOK_KEY")
    mail_from: Annotated[
        str, BeforeValidator(lambda value: value or MAIL_FROM), AfterValidator(_email)
    ] = Field(default=MAIL_FROM, alias="DUECOURSE_MAIL_FROM")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", alias="DUECOURSE_LOG_LEVEL"
    )
    # A killed worker's job starts again within a lease and a sweep.
    lease_seconds: float = Field(default=10, ge=1, le=600, alias="DUECOURSE_LEASE_SECONDS")
    # A run longer than this is taken to hang: its lease ends, and the job is rescued.
    run_limit_seconds: float = Field(default=600, ge=1, alias="DUECOURSE_RUN_LIMIT_SECONDS")
    drain_seconds: float = Field(default=25, ge=0, alias="DUECOURSE_DRAIN_SECONDS")
    # Messages outstanding in Redis per queue: 2 to 4 times its consumers' threads keeps them busy
    # and leaves order, pause and fairness to SQL.
    dispatch_window: int = Field(default=64, ge=1, le=10_000, alias="DUECOURSE_DISPATCH_WINDOW")
    poll_seconds: float = Field(default=0.25, gt=0, le=10, alias="DUECOURSE_POLL_SECONDS")

    @field_validator("stripe_api_base")
    @classmethod
    def _live_keys_are_for_stripe(cls, url: str | None, info: ValidationInfo) -> str | None:
        """Elsewhere money would seem to move, and somebody else would have the key."""
        key: SecretStr | None = info.data.get("stripe_secret_key")
        is_live = key is not None and key.get_secret_value().startswith(_LIVE_KEYS)
        if is_live and url is not None and not _is_stripes_own(url):
            raise PydanticCustomError(
                "live",
                "must be https at stripe.com, or not set, while STRIPE_SECRET_KEY is a live key",
            )
        return url


def settings_or_exit() -> Settings:
    """The settings, or the end of the process with one line that names what is wrong."""
    try:
        return Settings()
    except ValidationError as invalid:
        sys.stderr.write(f"duecourse: settings: {problems_of(invalid)}\n")
        raise SystemExit(2) from None


def problems_of(invalid: ValidationError) -> str:
    """One line that names every wrong setting and what it must be; never a value: some are secret."""
    return "; ".join(
        f"{error['loc'][0]}: "
        + _WORDINGS.get(error["type"], error["msg"]).format_map(error.get("ctx", {}))
        for error in invalid.errors(include_input=False)
    )
