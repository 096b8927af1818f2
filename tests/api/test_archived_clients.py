from typing import Any

from fastapi.testclient import TestClient

from tests.api.calls import a_charge, problem


def listed(api: TestClient, **filters: Any) -> list[str]:
    answer = api.get("/v1/clients", params=filters)
    assert answer.status_code == 200, answer.text
    return [one["id"] for one in answer.json()["data"]]


def archive(api: TestClient, client: dict[str, Any], *, archived: bool = True) -> dict[str, Any]:
    answer = api.patch(f"/v1/clients/{client['id']}", json={"archived": archived})
    assert answer.status_code == 200, answer.text
    changed: dict[str, Any] = answer.json()
    return changed


def test_an_archived_client_is_left_out_of_the_list_unless_asked_for(
    api: TestClient, ada: dict[str, Any]
) -> None:
    other = api.post("/v1/clients", json={"name": "Eve Imports"}).json()
    assert (ada["archived"], listed(api)) == (False, [other["id"], ada["id"]])

    assert archive(api, ada)["archived"] is True

    assert listed(api) == listed(api, archived="false") == [other["id"]]
    assert listed(api, archived="true") == [ada["id"]]
    assert listed(api, external_ref="merchant-17") == []
    assert api.get(f"/v1/clients/{ada['id']}").json()["archived"] is True
    archive(api, ada, archived=False)
    assert listed(api) == [other["id"], ada["id"]]
    problem(api.get("/v1/clients?archived=maybe"), 422, "invalid", "archived")


def test_it_takes_no_new_charges_and_no_drafts(
    api: TestClient, charge: dict[str, Any], ada: dict[str, Any]
) -> None:
    other = api.post("/v1/clients", json={"name": "Eve Imports"}).json()
    archive(api, ada)
    new = {"client": ada["id"], "description": "Bundling", "amount": 1}

    problem(api.post("/v1/charges", json=new), 409, "client_archived", "client")
    many = {"charges": [{**new, "client": other["id"]}, new]}
    problem(api.post("/v1/charges", json=many), 409, "client_archived", "charges[1].client")
    assert api.get("/v1/charges", params={"client": other["id"]}).json()["data"] == []
    for body in ({}, {"charge_ids": [charge["id"]]}):
        drafted = api.post("/v1/invoices", json={"client": ada["id"], **body})
        problem(drafted, 409, "client_archived")
    problem(
        api.patch(f"/v1/clients/{ada['id']}", json={"billing_cycle": "monthly"}),
        409,
        "client_archived",
    )


def test_one_with_a_draft_cannot_be_archived(api: TestClient, draft: dict[str, Any]) -> None:
    url = f"/v1/clients/{draft['client']}"

    refused = problem(api.patch(url, json={"archived": True}), 409, "client_has_drafts")

    assert draft["id"] in refused["detail"]
    assert api.get(url).json()["archived"] is False
    problem(api.patch(url, json={"archived": "yes"}), 422, "invalid", "archived")


def test_a_locked_charge_of_one_is_not_amended(
    api: TestClient, charge: dict[str, Any], invoice: dict[str, Any]
) -> None:
    archive(api, {"id": invoice["client"]})
    url = f"/v1/charges/{charge['id']}"

    problem(api.patch(url, json={"amount": 1}), 409, "client_archived")
    problem(api.delete(url), 409, "client_archived")


def test_its_invoices_are_still_there(api: TestClient, invoice: dict[str, Any]) -> None:
    archive(api, {"id": invoice["client"]})

    shown = api.get("/v1/invoices", params={"client": invoice["client"]}).json()["data"]
    assert [one["id"] for one in shown] == [invoice["id"]]


def test_unarchived_it_is_charged_again(api: TestClient, ada: dict[str, Any]) -> None:
    archive(api, ada)

    assert archive(api, ada, archived=False)["billing_cycle"] == "manual"

    assert a_charge(api, ada)["state"] == "open"
