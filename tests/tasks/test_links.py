from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from billing.errors import NotFound
from tasks import links as module
from tasks.links import LinkExpired, Links

LINKS = Links("https://bills.example", "a secret of thirty-two characters")
OTHERS = Links("https://bills.example", "another one of thirty-two letters")


def token(link: str) -> str:
    return urlsplit(link).path.rpartition("/")[2]


def test_a_link_leads_to_its_invoice_and_can_be_read_back() -> None:
    invoice = uuid4()
    link = LINKS.to_invoice(invoice)
    assert link.startswith("https://bills.example/i/")
    assert LINKS.invoice_of(token(link)) == invoice


def test_a_portal_link_leads_to_its_client() -> None:
    client = uuid4()
    link = LINKS.to_portal(client)
    assert link.startswith("https://bills.example/p/")
    assert LINKS.client_of(token(link)) == client


def test_one_kind_of_link_does_not_open_the_other_kind_of_page() -> None:
    subject = uuid4()
    with pytest.raises(NotFound):
        LINKS.client_of(token(LINKS.to_invoice(subject)))
    with pytest.raises(NotFound):
        LINKS.invoice_of(token(LINKS.to_portal(subject)))


@pytest.mark.parametrize("made_up", ["", "x", "Imh1aCI.AAAA", "..", "\u00e9"])
def test_a_token_that_we_have_not_signed_leads_nowhere(made_up: str) -> None:
    with pytest.raises(NotFound):
        LINKS.invoice_of(made_up)
    with pytest.raises(NotFound):
        LINKS.client_of(made_up)


def test_another_secret_s_links_are_not_ours() -> None:
    with pytest.raises(NotFound):
        LINKS.invoice_of(token(OTHERS.to_invoice(uuid4())))


def test_a_portal_link_ends_and_an_invoice_s_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PORTAL_LINKS_LIVE", -module.PORTAL_LINKS_LIVE)
    with pytest.raises(LinkExpired):
        LINKS.client_of(token(LINKS.to_portal(uuid4())))
    invoice = uuid4()
    assert LINKS.invoice_of(token(LINKS.to_invoice(invoice))) == invoice
