"""The server as a process: what outlives it."""

import shutil
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import urllib3

from gateways.sandbox.processes import LocalServerError
from gateways.sandbox.sendgrid.client import SendGridControl
from gateways.sandbox.sendgrid.events import EventKind
from gateways.sandbox.sendgrid.faults import Fault, FaultKind
from gateways.sandbox.sendgrid.sandbox import SendGridSandbox
from tests.gateways.conftest import Listener

Payload = dict[str, Any]
Post = Callable[..., urllib3.BaseHTTPResponse]


def test_mails_log_faults_and_key_outlive_a_kill(
    directory: Path, post: Post, payload: Payload, listener: Listener
) -> None:
    with SendGridSandbox(directory / "sendgrid") as sandbox:
        url, control = sandbox.url, sandbox.control()
        key = control.public_key()
        control.set_webhook(listener.url)
        assert post(payload, url=url).status == 202
        control.fail(Fault(kind=FaultKind.STATUS, times=2))
        sandbox.kill()
        assert not sandbox.is_running
        assert sandbox.start() == url
        assert control.public_key() == key
        (mail,) = control.mails(**payload["custom_args"])
        assert mail.eml
        assert [request.status for request in control.requests()] == [202]
        assert control.faults_in_line() == 2
        assert control.deliver(mail, EventKind.DELIVERED).delivered
        control.close()


def test_files_of_a_mail_accepted_just_before_a_kill_are_written_at_the_next_start(
    directory: Path, post: Post, payload: Payload
) -> None:
    sandbox = SendGridSandbox(directory / "sendgrid")
    with sandbox:
        post(payload, url=sandbox.url)
        control = sandbox.control()
        (mail,) = control.mails()
        eml = mail.eml
        control.close()
        sandbox.kill()
    shutil.rmtree(mail.folder)
    mail.folder.mkdir()
    (mail.folder / "mail.eml.part").write_text("half")
    with sandbox:
        assert len(mail.eml) == len(eml)
        assert not (mail.folder / "mail.eml.part").exists()


def test_a_stop_does_not_wait_for_a_hanging_send(directory: Path, payload: Payload) -> None:
    with SendGridSandbox(directory / "sendgrid") as sandbox:
        control = sandbox.control()
        control.fail(Fault(kind=FaultKind.HANG, seconds=3_600))
        control.close()
        with (
            urllib3.PoolManager(retries=False, timeout=urllib3.Timeout(0.2)) as impatient,
            pytest.raises(urllib3.exceptions.ReadTimeoutError),
        ):
            impatient.request(
                "POST",
                f"{sandbox.url}/v3/mail/send",
                json=payload,
                headers={"Authorization": "Bearer SG.x"},
            )


def test_two_run_side_by_side_and_one_directory_has_one_owner(directory: Path) -> None:
    with SendGridSandbox(directory / "one") as one, SendGridSandbox(directory / "two") as two:
        assert one.url != two.url
        with pytest.raises(LocalServerError, match="in use"):
            SendGridSandbox(directory / "one").start()


def test_a_taken_port_is_given_up_for_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SendGridSandbox(directory / "one") as one:
        two = SendGridSandbox(directory / "two")
        monkeypatch.setattr(two, "_port", one._port)
        with two:
            assert two._port != one._port


def test_it_listens_on_the_loopback_interface_alone_and_logs_nothing_when_all_is_well(
    directory: Path, post: Post, payload: Payload
) -> None:
    sandbox = SendGridSandbox(directory / "sendgrid")
    with sandbox:
        post(payload, url=sandbox.url)
        with urllib.request.urlopen(f"{sandbox.url}/_sandbox/health") as answer:  # noqa: S310 - http, ours.
            assert answer.status == 200
        assert sandbox.url.startswith("http://127.0.0.1:")
    assert sandbox.log.read_text() == ""


def test_a_control_that_is_closed_can_be_made_again(sendgrid: SendGridSandbox) -> None:
    first: SendGridControl = sendgrid.control()
    first.close()
    second = sendgrid.control()
    assert second.public_key()
    second.close()
