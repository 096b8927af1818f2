import pytest
from pydantic import ValidationError

from settings import Settings, problems_of, settings_or_exit

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
