import re

from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.pages import VERSION


def test_the_home_page_says_what_this_is_and_needs_nothing_from_elsewhere(app: FastAPI) -> None:
    with TestClient(app) as client:
        answer = client.get("/")

    assert answer.status_code == 200
    assert VERSION in answer.text
    assert "Ready." in answer.text
    assert 'href="/openapi.json"' in answer.text
    assert not re.findall(r"https?://|<script|<link|<img|url\(", answer.text)
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_every_link_of_the_home_page_leads_somewhere(app: FastAPI) -> None:
    with TestClient(app) as client:
        links = re.findall(r'href="([^"]+)"', client.get("/").text)
        assert {client.get(link).status_code for link in links} == {200}
