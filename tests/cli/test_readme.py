"""What the README says to type is typed."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.test_up import LIMIT_SECONDS, Up, home
from tests.processes import ROOT
from tests.waiting import wait_for

__all__ = ["home"]

README = (ROOT / "README.md").read_text()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the README's commands are curl's")
def test_the_commands_of_the_readme_carry_an_invoice_from_a_charge_to_its_receipt(
    home: Path,
) -> None:
    (commands,) = re.findall(r"```\n(set -a; .*?)```", README, re.DOTALL)
    with Up(home / "var") as up:
        walk = subprocess.run(
            ["/bin/bash", "-euc", f"{commands}\necho $INVOICE > invoice"],
            cwd=home,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
        assert walk.returncode == 0, walk.stderr
        assert walk.stderr == ""
        assert (home / "invoice.pdf").read_bytes().startswith(b"%PDF")
        invoice = (home / "invoice").read_text().strip()

        def is_settled() -> bool:
            _, body = up.get(f"/v1/invoices/{invoice}")
            told = json.loads(body)
            mails = {(mail["kind"], mail["state"]) for mail in told["mails"]}
            return told["status"] == "paid" and ("receipt", "delivered") in mails

        wait_for(is_settled, limit=LIMIT_SECONDS, what="the invoice's payment and its receipt")
        _, body = up.get(f"/v1/invoices/{invoice}")
        told = json.loads(body)
        assert (told["total"], told["credit_applied"], told["amount_paid"]) == (3300, 1000, 2300)
        up.stop()
