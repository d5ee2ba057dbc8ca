"""Agreements, provider instances, resellers, subscriptions and GDAP relationships."""

from collections import Counter
from collections.abc import Iterator

import pytest
from sandbox_api import TENANT, UNKNOWN_ID, Api, Row, quiet_customer_ids

from cockpit_source.sandbox import (
    RESELLER_CLIENT,
    EventKind,
    Sandbox,
    SandboxTenant,
    load_products,
    running_sandbox,
)

PAID = {product.sku_id: product for product in load_products() if product.is_paid}


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    running.configure(provider_style="name")
    running.day = 0
    return running


@pytest.fixture
def api(sandbox: Sandbox) -> Api:
    return Api(sandbox)


def pairs(rows: list[Row]) -> list[tuple[str, str]]:
    return [(row["customerId"], row["providerInstanceId"]) for row in rows]


@pytest.mark.parametrize("day", [0, 2])
def test_agreements_name_every_pair_of_the_scopes_once(sandbox: Sandbox, api: Api, day: int) -> None:
    sandbox.day = day
    assert Counter(pairs(api.rows("Customers/mca", size=7))) == Counter(scope[:2] for scope in TENANT.scopes(day))


def test_agreements_carry_the_contact_of_the_customer(api: Api) -> None:
    customers = {row["id"]: row for row in api.rows("Customers")}
    names = {row["id"]: row["alias"] for row in api.rows("Providers/Instances")}
    for row in api.rows("Customers/mca"):
        customer = customers[row["customerId"]]
        entry = customer["providerCustomers"][row["providerInstanceId"]]
        contact = {name: customer[name] for name in ("companyName", "firstName", "lastName", "email", "phone")}
        assert row == contact | {
            "customerId": customer["id"],
            "providerCustomerId": entry["providerCustomerId"],
            "providerInstanceId": row["providerInstanceId"],
            "providerInstanceName": names[row["providerInstanceId"]],
            "status": row["status"],
        }


def test_agreements_can_be_narrowed_and_sorted(api: Api) -> None:
    everything = api.rows("Customers/mca")
    statuses = [row["status"]["name"] for row in everything]
    assert statuses == sorted(statuses, reverse=True)
    assert set(statuses) > {"Required", "AgreementCreated"}
    required = [row for row in everything if row["status"]["name"] == "Required"]
    assert api.rows("Customers/mca", status="requiRED") == required
    open_ones = [row for row in everything if row["status"]["name"] != "AgreementCreated"]
    assert api.rows("Customers/mca", excludeCompliant="true") == open_ones
    one = everything[0]
    query = {"customerId": one["customerId"], "providerInstanceId": one["providerInstanceId"]}
    assert api.rows("Customers/mca", **query) == [one]
    named = api.rows("Customers/mca", searchValue="gmbh", sortPropertyName="CompanyName", ascendingOrder=True)
    assert [row["companyName"].casefold() for row in named] == sorted(
        row["companyName"].casefold() for row in everything if "gmbh" in row["companyName"].lower()
    )


def test_agreements_with_wrong_parameters_are_400(api: Api) -> None:
    query = {"status": "lost", "customerId": "x", "excludeCompliant": 2, "sortPropertyName": "Zip", "pageSize": 0}
    assert api.wrong_parameters("Customers/mca", **query) == [
        *("pageSize", "customerId", "status", "sortPropertyName", "excludeCompliant")
    ]


@pytest.mark.parametrize(
    ("style", "providers"),
    [
        ("name", [{"name": "Microsoft"}, {"name": "Microsoft"}, {"name": "Tresor Backup"}]),
        (
            "type",
            [{"type": {"name": "Microsoft"}}, {"type": {"name": "Microsoft"}}, {"type": {"name": "Tresor Backup"}}],
        ),
        ("none", [{}, {}, {}]),
    ],
)
def test_provider_instances_tell_their_provider_in_the_style(
    sandbox: Sandbox, api: Api, style: str, providers: list[Row]
) -> None:
    sandbox.provider_style = style
    rows = api.rows("Providers/Instances", size=1)
    assert [row["provider"] for row in rows] == providers
    assert [row["id"] for row in rows[:2]] == [instance.id for instance in TENANT.provider_instances]
    assert [row["instanceProviderId"] is None for row in rows] == [False, False, True]


def test_customers_in_the_other_instance_have_no_licences_there(sandbox: Sandbox, api: Api) -> None:
    other_id = sandbox.directory.other_instance.id
    listed = [row for row in api.rows("Customers") if other_id in row["providerCustomers"]]
    assert 5 < len(listed) < 40
    for call in ("licenses", "delegated-admin-relationships"):
        path = f"Customers/{listed[0]['id']}/{call}"
        assert api.wrong_parameters(path, providerInstanceId=other_id) == ["providerInstanceId"]


def test_unfinished_entries_are_404_on_licence_calls(sandbox: Sandbox, api: Api) -> None:
    unfinished = [
        (row["id"], instance_id)
        for row in api.rows("Customers")
        for instance_id, entry in row["providerCustomers"].items()
        if entry["providerCustomerId"] is None
    ]
    assert unfinished
    for customer_id, instance_id in unfinished:
        assert api.status(f"Customers/{customer_id}/licenses", providerInstanceId=instance_id) == (404, True)


def test_resellers_are_listed_for_csp_clients_only(sandbox: Sandbox, api: Api) -> None:
    rows = api.rows("Resellers", size=4)
    assert [(row["id"], row["companyName"]) for row in rows] == [(r.id, r.company_name) for r in TENANT.resellers]
    assert "zip" not in rows[0]
    assert rows[0]["zipCode"]
    assert set(rows[0]["providerResellers"]) == {instance.id for instance in TENANT.provider_instances}
    assert Api(sandbox, RESELLER_CLIENT).status("Resellers") == (403, False)


def test_resellers_of_a_pair_are_the_partners_of_the_customer(api: Api) -> None:
    customers = {row["id"]: row for row in api.rows("Customers")}
    for customer_id, instance_id, _ in list(TENANT.scopes(0))[:40]:
        related = api.rows("Resellers", customerId=customer_id, providerInstanceId=instance_id)
        partners = customers[customer_id]["customerAssociations"] or []
        assert {row["id"] for row in related} == {partner["resellerId"] for partner in partners}


def test_resellers_of_a_customer_need_the_instance_too(sandbox: Sandbox, api: Api) -> None:
    customer_id, instance_id, _ = next(scope for scope in TENANT.scopes(0) if scope[2])
    assert api.wrong_parameters("Resellers", customerId=customer_id) == ["providerInstanceId"]
    assert api.rows("Resellers", customerId=UNKNOWN_ID, providerInstanceId=instance_id) == []
    assert api.rows("Resellers", customerId=customer_id, providerInstanceId=UNKNOWN_ID) == []
    assert len(api.rows("Resellers", providerInstanceId=instance_id)) == len(TENANT.resellers)
    assert api.rows("Resellers", providerInstanceId=sandbox.directory.other_instance.id) == []


def test_resellers_can_be_searched_and_sorted(api: Api) -> None:
    one = api.rows("Resellers")[1]
    instance = next(iter(one["providerResellers"].values()))
    for field, value in {
        "Company.Name": "nordLICHT",
        "InternalIdentifier": one["internalIdentifier"],
        "MpnId": instance["mpnId"],
    }.items():
        assert api.rows("Resellers", searchField=field, searchValue=value) == [one]
    names = [
        row["companyName"] for row in api.rows("Resellers", sortPropertyName="Company.Name", ascendingOrder="false")
    ]
    assert names == sorted(names, key=str.casefold, reverse=True)
    assert api.wrong_parameters("Resellers", searchField="MpnId", sortPropertyName="Zip") == [
        "searchValue",
        "sortPropertyName",
    ]


@pytest.mark.parametrize("day", [0, 2])
def test_subscriptions_are_the_paid_lines_of_the_licences(sandbox: Sandbox, api: Api, day: int) -> None:
    sandbox.day = day
    expected = [
        (
            *(customer_id, instance_id, reseller_id, PAID[row["skuId"]].part_number, row["name"]),
            *(row["totalLicenses"] + row["suspendedLicenses"], row["consumedLicenses"]),
        )
        for customer_id, instance_id, reseller_id in TENANT.scopes(day)
        for row in TENANT.licenses(customer_id, instance_id, day)
        if row["skuId"] in PAID
    ]
    names = ("customerId", "providerInstanceId", "resellerId", "providerOfferId", "offerName", "quantity")
    rows = api.rows("subscriptions")
    assert [tuple(row[name] for name in (*names, "assignedLicenses")) for row in rows] == expected
    assert len({row["id"] for row in rows}) == len(rows)
    assert api.rows("subscriptions", size=97) == rows


def test_subscription_with_most_seats_suspended_is_suspended(sandbox: Sandbox, api: Api) -> None:
    event = TENANT.event(EventKind.SEATS_SUSPENDED)
    sandbox.day = event.day
    rows = api.rows(f"customers/{event.customer_id}/subscriptions")
    statuses = {row["providerOfferId"]: row["subscriptionStatus"]["name"] for row in rows}
    assert statuses[PAID[event.sku_id or ""].part_number] == "Suspended"
    assert set(statuses.values()) == {"Active", "Suspended"}


def test_subscriptions_of_a_customer_are_those_of_the_whole_list(sandbox: Sandbox, api: Api) -> None:
    everything = api.rows("subscriptions")
    for customer_id in quiet_customer_ids(sandbox)[:10]:
        own = [row for row in everything if row["customerId"] == customer_id]
        path = f"Customers/{customer_id}/subscriptions"
        assert api.rows(path) == api.rows(path, resellerId=own[0]["resellerId"]) == own
        offer_id = own[0]["offerId"]
        assert api.rows(path, offerId=offer_id) == [row for row in own if row["offerId"] == offer_id]


def test_subscriptions_can_be_searched_and_sorted(api: Api) -> None:
    everything = api.rows("subscriptions")
    found = api.rows("subscriptions", searchValue="visio")
    assert found == [row for row in everything if "visio" in row["offerName"].lower()] != []
    orders = {"Offer.Name": "offerName", "StartDate": "startDate", "EndDate": "endDate"}
    for order, name in orders.items():
        values = [row[name].casefold() for row in api.rows("subscriptions", sortPropertyName=order)]
        assert values == sorted(values)
    by_status = api.rows("subscriptions", sortPropertyName="Status", ascendingOrder=False)
    names = [row["subscriptionStatus"]["name"] for row in by_status]
    assert names == sorted(names, reverse=True)
    assert api.wrong_parameters("subscriptions", sortPropertyName="Price", pageSize=0) == [
        "pageSize",
        "sortPropertyName",
    ]


def test_subscription_calls_refuse_who_may_not_see_them(sandbox: Sandbox, api: Api) -> None:
    as_reseller = Api(sandbox, RESELLER_CLIENT)
    assert as_reseller.status("subscriptions") == (403, False)
    own_id, other_id = (reseller.id for reseller in TENANT.resellers[:2])
    quiet = set(quiet_customer_ids(sandbox))
    own, other, direct = (
        next(scope[0] for scope in TENANT.scopes(0) if scope[0] in quiet and scope[2] == reseller_id)
        for reseller_id in (own_id, other_id, None)
    )
    assert as_reseller.status(f"customers/{own}/subscriptions") == (200, True)
    assert as_reseller.status(f"customers/{other}/subscriptions") == (403, False)
    assert api.status(f"customers/{direct}/subscriptions", resellerId=own_id) == (403, False)
    assert api.status(f"customers/{UNKNOWN_ID}/subscriptions") == (404, True)
    assert api.wrong_parameters("customers/x/subscriptions", offerId="y") == ["customerId", "offerId"]


def test_gdap_is_active_exactly_where_licences_may_be_read(sandbox: Sandbox, api: Api) -> None:
    seen: Counter[str] = Counter()
    for day in (0, 2, 4):
        sandbox.day = day
        for customer_id, instance_id, _ in TENANT.scopes(day):
            customer = TENANT.customer(customer_id)
            rows = api.json(f"Customers/{customer_id}/delegated-admin-relationships", providerInstanceId=instance_id)
            statuses = [row["status"]["name"] for row in rows]
            assert customer is not None
            assert ("active" in statuses) == customer.has_gdap_on(day)
            assert {row["customer"]["tenantId"] for row in rows} <= {
                sandbox.directory.microsoft_id(customer_id, instance_id)
            }
            seen.update(statuses or ["nothing"])
    assert seen.keys() == {"active", "expired", "terminated", "nothing"}


def test_gdap_call_refuses_what_it_does_not_know(sandbox: Sandbox, api: Api) -> None:
    customer_id, instance_id, _ = next(iter(TENANT.scopes(0)))
    path = f"Customers/{customer_id}/delegated-admin-relationships"
    assert api.wrong_parameters(path) == ["providerInstanceId"]
    assert api.status(path, providerInstanceId=UNKNOWN_ID) == (404, True)
    unknown = f"Customers/{UNKNOWN_ID}/delegated-admin-relationships"
    assert api.status(unknown, providerInstanceId=instance_id) == (404, True)
    other = next(scope for scope in TENANT.scopes(0) if scope[2] == TENANT.resellers[1].id)
    path = f"Customers/{other[0]}/delegated-admin-relationships"
    assert Api(sandbox, RESELLER_CLIENT).status(path, providerInstanceId=other[1]) == (403, False)


@pytest.mark.parametrize(
    "path", ["Customers", "Customers/mca", "Providers/Instances", "Resellers", "subscriptions", "AuditLogs"]
)
def test_every_list_wants_a_token_and_the_domain_and_can_fail(sandbox: Sandbox, api: Api, path: str) -> None:
    answer = api.call(path, method="POST")
    assert answer.status_code == answer.json()["statusCode"] == 405
    sandbox.faults.for_path(f"/v1/{path}", "error_500", 1)
    assert [api.call(path).status_code for _ in range(2)] == [500, 200]
    sandbox.tokens.revoke_all()
    assert api.status(path) == (401, False)


def test_tenant_without_incidents_has_no_deleted_customers() -> None:
    tenant = SandboxTenant(customers=30, incidents=False)
    with running_sandbox(tenant) as sandbox:
        assert [row["isDeleted"] for row in Api(sandbox).rows("Customers")] == [False] * 30
