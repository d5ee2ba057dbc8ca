"""The customer list and the single customer: what a reader can find out from them."""

from collections import Counter
from collections.abc import Iterator

import pytest
from sandbox_api import TENANT, UNKNOWN_ID, Api, Row

from cockpit_source.sandbox import RESELLER_CLIENT, EventKind, Sandbox, SandboxTenant, running_sandbox

FIELDS = {
    *("id", "companyName", "country", "addressLine1", "addressLine2", "city", "state", "zip", "firstName"),
    *("middleName", "lastName", "email", "phone", "taxId", "internalIdentifier", "resellerId"),
    *("providerCustomers", "customerAssociations"),
}
OPTIONAL_FIELDS = {"addressLine2", "middleName", "phone", "taxId", "internalIdentifier", "resellerId"}
ENTRY_FIELDS = {"providerCustomerId", "providerCustomerData", "margin"}


@pytest.fixture(scope="module")
def running() -> Iterator[Sandbox]:
    with running_sandbox(TENANT) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    running.clear()
    running.configure(deleted_style="is_deleted", provider_style="name", page_churn=0)
    running.moved_rows = 0
    running.day = 0
    return running


@pytest.fixture
def api(sandbox: Sandbox) -> Api:
    return Api(sandbox)


def is_deleted(customer: Row) -> bool:
    return bool(customer.get("isDeleted")) or customer.get("status") == {"name": "Deleted"}


def discovered(customers: list[Row], instances: list[Row]) -> set[tuple[str, str, str | None]]:
    """Scopes as a reader finds them: entries of customers that are not deleted, created, and at Microsoft."""
    microsoft = {row["id"] for row in instances if row["provider"] in ({"name": "Microsoft"}, _TYPED)}
    return {
        (customer["id"], entry.get("providerInstanceId", key), customer["resellerId"])
        for customer in customers
        if not is_deleted(customer)
        for key, entry in customer["providerCustomers"].items()
        if entry["providerCustomerId"] is not None and key in microsoft
    }


_TYPED = {"type": {"name": "Microsoft"}}


@pytest.mark.parametrize("day", range(5))
@pytest.mark.parametrize("styles", [("is_deleted", "name"), ("status", "type")])
def test_scopes_discovered_from_the_list_are_those_of_the_tenant(
    sandbox: Sandbox, api: Api, day: int, styles: tuple[str, str]
) -> None:
    sandbox.day = day
    sandbox.deleted_style, sandbox.provider_style = styles
    found = discovered(api.rows("Customers"), api.rows("Providers/Instances"))
    assert found == set(TENANT.scopes(day))


def test_pages_of_seven_give_every_customer_once(sandbox: Sandbox, api: Api) -> None:
    pages = list(api.pages("Customers", 7))
    ids = [item["id"] for page in pages for item in page["items"]]
    expected = [customer.id for customer in sandbox.directory.customers(0)]
    assert ids == expected
    assert len(set(ids)) == len(TENANT.customers) - 1 + 3  # one joins later, three are deleted from the start
    assert [page["hasPreviousPage"] for page in pages] == [False] + [True] * (len(pages) - 1)
    assert {(page["totalCount"], page["totalPages"], page["continuationToken"]) for page in pages} == {
        (len(ids), len(pages), None)
    }
    assert [page["paginationParameters"] for page in pages] == [
        {"pageNumber": number, "pageSize": 7} for number in range(1, len(pages) + 1)
    ]


def test_page_by_default_holds_25_and_one_after_the_last_none(api: Api) -> None:
    first, last = api.json("Customers"), api.json("Customers", pageNumber=900)
    assert (len(first["items"]), first["paginationParameters"]) == (25, {"pageNumber": 1, "pageSize": 25})
    assert (last["items"], last["hasNextPage"], last["hasPreviousPage"]) == ([], False, True)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"pageNumber": 0}, ["pageNumber"]),
        ({"pageNumber": "x", "pageSize": 2001}, ["pageNumber", "pageSize"]),
        ({"pageSize": "1.5"}, ["pageSize"]),
        ({"pageSize": ""}, ["pageSize"]),
        ({"searchField": "Domain"}, ["searchValue"]),
        ({"searchField": "Fax", "searchValue": "1"}, ["searchField"]),
        ({"searchValue": "x" * 256}, ["searchValue"]),
        ({"sortPropertyName": "Zip"}, ["sortPropertyName"]),
        ({"ascendingOrder": "1"}, ["ascendingOrder"]),
        ({"resellerId": "abc"}, ["resellerId"]),
    ],
)
def test_list_with_a_wrong_parameter_is_400_and_says_which(api: Api, query: Row, names: list[str]) -> None:
    assert api.wrong_parameters("Customers", **query) == names


def test_customers_have_every_field_and_invented_contacts(api: Api) -> None:
    customers = api.rows("Customers")
    entries = [entry for customer in customers for entry in customer["providerCustomers"].values()]
    assert {frozenset(customer) for customer in customers} == {frozenset(FIELDS | {"isDeleted"})}
    assert {frozenset(entry) for entry in entries} == {
        frozenset(ENTRY_FIELDS),
        frozenset(ENTRY_FIELDS | {"providerInstanceId"}),
    }
    assert any(entry["providerCustomerId"] is None for entry in entries)
    for customer in customers:
        assert {name for name in FIELDS if customer[name] is None} <= OPTIONAL_FIELDS | {"customerAssociations"}
        assert customer["email"].endswith(".example")
        assert customer["email"].isascii()
    for name in OPTIONAL_FIELDS:
        assert 0 < sum(customer[name] is None for customer in customers) < len(customers)


def test_entries_that_name_an_instance_name_that_of_their_key(api: Api) -> None:
    for customer in api.rows("Customers"):
        for key, entry in customer["providerCustomers"].items():
            assert entry.get("providerInstanceId", key) == key


@pytest.mark.parametrize("style", ["is_deleted", "status", "none"])
def test_deleted_customers_are_listed_with_the_marker_of_the_style(sandbox: Sandbox, api: Api, style: str) -> None:
    sandbox.deleted_style = style
    sandbox.day = 2
    left = TENANT.event(EventKind.CUSTOMER_LEFT)
    gone = {left.customer_id, *(customer.id for customer in sandbox.directory.deleted_customers)}
    customers = api.rows("Customers")
    assert gone < {customer["id"] for customer in customers}
    assert {customer["id"] for customer in customers if is_deleted(customer)} == (gone if style != "none" else set())
    assert all(api.status(f"Customers/{customer_id}") == (404, True) for customer_id in gone)


def test_customer_on_its_own_is_the_row_of_the_list(sandbox: Sandbox, api: Api) -> None:
    for row in api.rows("Customers")[::10]:
        if not row["isDeleted"]:
            assert api.json(f"Customers/{row['id'].upper()}", resellerId=row["resellerId"]) == row


def test_customer_that_is_unknown_or_has_no_id_is_refused(api: Api) -> None:
    assert api.status(f"Customers/{UNKNOWN_ID}") == (404, True)
    assert api.wrong_parameters("Customers/abc", resellerId="def") == ["customerId", "resellerId"]


def test_customer_for_an_unrelated_reseller_is_403_without_body(api: Api) -> None:
    direct = next(row for row in api.rows("Customers") if row["resellerId"] is None and not row["isDeleted"])
    assert api.status(f"Customers/{direct['id']}", resellerId=TENANT.resellers[0].id) == (403, False)


def test_list_of_a_reseller_holds_all_its_relations(sandbox: Sandbox, api: Api) -> None:
    customers = api.rows("Customers")
    seen: Counter[str] = Counter()
    for reseller in TENANT.resellers:
        ids = [row["id"] for row in api.rows("Customers", resellerId=reseller.id)]
        partners = [
            row["id"]
            for row in customers
            if any(partner["resellerId"] == reseller.id for partner in row["customerAssociations"] or [])
        ]
        assert ids == partners
        seen.update(ids)
    assert set(seen.values()) == {1, 2}
    assert api.rows("Customers", resellerId=UNKNOWN_ID) == []


def test_list_can_be_searched_in_every_field(api: Api) -> None:
    customers = api.rows("Customers")
    one = next(row for row in customers if row["internalIdentifier"])
    entry = next(iter(one["providerCustomers"].values()))
    domain = one["email"].partition("@")[2]
    for field, value in {
        "InternalIdentifier": one["internalIdentifier"].lower(),
        "ProviderCustomerId": entry["providerCustomerId"],
        "Domain": domain,
    }.items():
        assert api.rows("Customers", searchField=field, searchValue=value) == [one]
    named = [row for row in customers if "gmbh" in row["companyName"].lower()]
    assert api.rows("Customers", searchValue="GMBH") == named
    assert api.rows("Customers", searchValue="GMBH", searchField="Company.Name") == named


def test_list_is_sorted_by_name_either_way(api: Api) -> None:
    customers = sorted(api.rows("Customers"), key=lambda row: (row["companyName"].casefold(), row["id"]))
    assert api.rows("Customers", sortPropertyName="Company.Name") == customers
    assert api.rows("Customers", sortPropertyName="Company.Name", ascendingOrder=False) == customers[::-1]


def test_reseller_client_sees_its_own_customers_only(sandbox: Sandbox, api: Api) -> None:
    own_id, other_id = (reseller.id for reseller in TENANT.resellers[:2])
    own = [row for row in api.rows("Customers") if row["resellerId"] == own_id]
    other = next(row for row in api.rows("Customers") if row["resellerId"] == other_id)
    as_reseller = Api(sandbox, RESELLER_CLIENT)
    assert as_reseller.rows("Customers") == as_reseller.rows("Customers", resellerId=own_id) == own
    assert as_reseller.status("Customers", resellerId=other_id) == (403, False)
    assert as_reseller.status(f"Customers/{other['id']}") == (403, False)
    assert as_reseller.json(f"Customers/{own[0]['id']}") == own[0]


@pytest.mark.parametrize("churn", [1, 3])
def test_page_churn_makes_a_naive_reader_miss_rows_and_see_others_twice(
    sandbox: Sandbox, api: Api, churn: int
) -> None:
    everybody = {row["id"] for row in api.rows("Customers")}
    sandbox.page_churn = churn
    pages = list(api.pages("Customers", 25))
    counts = Counter(item["id"] for page in pages for item in page["items"])
    assert {page["totalCount"] for page in pages} == {len(everybody)} == {counts.total()}
    assert len(everybody - counts.keys()) == churn
    assert Counter(counts.values()) == {1: len(everybody) - 2 * churn, 2: churn}
    assert sandbox.page_churn == 0
    assert {row["id"] for row in api.rows("Customers", size=25)} == everybody


def test_page_churn_spares_other_lists_and_refused_calls(sandbox: Sandbox, api: Api) -> None:
    sandbox.page_churn = 1
    api.rows("Customers/mca")
    api.rows("Resellers")
    api.call("Customers", pageNumber=0)
    assert sandbox.page_churn == 1


def test_large_tenant_is_listed_without_making_its_licences() -> None:
    with running_sandbox(SandboxTenant(customers=3000, incidents=False)) as sandbox:
        rows = Api(sandbox).rows("Customers")
    assert [row["id"] for row in rows] == [customer.id for customer in sandbox.tenant.customers]
    assert not any(row["isDeleted"] for row in rows)
