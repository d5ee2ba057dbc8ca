"""Licence calls with a reseller id: the same rows as without, or parts of a whole."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox_api import TENANT, Api

from cockpit_source.sandbox import RESELLER_CLIENT, Sandbox, running_sandbox

COUNTS = ("totalLicenses", "consumedLicenses", "availableLicenses", "suspendedLicenses")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with running_sandbox(TENANT, reseller_answers="parts") as running:
        yield running


def quiet_scopes(sandbox: Sandbox, relations: int) -> list[tuple[str, str, tuple[str, ...]]]:
    """Customer, instance and reseller ids of customers with so many resellers, to whom nothing happens."""
    return [
        (customer.id, instance_id, sandbox.directory.reseller_ids(customer))
        for customer in sandbox.tenant.customers
        if not customer.script and len(sandbox.directory.reseller_ids(customer)) == relations
        for instance_id in customer.provider_instance_ids
    ]


def licenses(api: Api, customer_id: str, instance_id: str, reseller_id: str | None = None) -> Any:
    return api.json(f"Customers/{customer_id}/licenses", providerInstanceId=instance_id, resellerId=reseller_id)


def seats(rows: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    return Counter({(row["skuId"], name): row[name] for row in rows for name in COUNTS})


def test_parts_of_all_resellers_add_up_to_the_whole(sandbox: Sandbox) -> None:
    api = Api(sandbox)
    scopes = quiet_scopes(sandbox, relations=2)
    assert len(scopes) > 5
    for customer_id, instance_id, reseller_ids in scopes:
        whole = seats(licenses(api, customer_id, instance_id))
        parts = [seats(licenses(api, customer_id, instance_id, reseller_id)) for reseller_id in reseller_ids]
        together: Counter[tuple[str, str]] = Counter()
        for part in parts:
            together.update(part)
        assert {key: count for key, count in together.items() if count} == {
            key: count for key, count in whole.items() if count
        }
        assert all(part != whole for part in parts) or max(whole.values()) < 2


def test_part_of_the_only_reseller_is_the_whole(sandbox: Sandbox) -> None:
    api = Api(sandbox)
    for customer_id, instance_id, (reseller_id,) in quiet_scopes(sandbox, relations=1)[:10]:
        whole = TENANT.licenses(customer_id, instance_id, 0)
        assert licenses(api, customer_id, instance_id) == whole
        assert licenses(api, customer_id, instance_id, reseller_id) == whole


def test_reseller_client_gets_its_part_without_asking(sandbox: Sandbox) -> None:
    own_id = TENANT.resellers[0].id
    scopes = [scope for scope in quiet_scopes(sandbox, relations=2) if scope[2][0] == own_id]
    parts = [licenses(Api(sandbox), customer_id, instance_id, own_id) for customer_id, instance_id, _ in scopes]
    as_reseller = Api(sandbox, RESELLER_CLIENT)
    assert [licenses(as_reseller, customer_id, instance_id) for customer_id, instance_id, _ in scopes] == parts
    assert parts != [TENANT.licenses(customer_id, instance_id, 0) for customer_id, instance_id, _ in scopes]


def test_unrelated_reseller_is_403_in_parts_too(sandbox: Sandbox) -> None:
    customer_id, instance_id, reseller_ids = quiet_scopes(sandbox, relations=2)[0]
    unrelated = next(reseller.id for reseller in TENANT.resellers if reseller.id not in reseller_ids)
    query = {"providerInstanceId": instance_id, "resellerId": unrelated}
    assert Api(sandbox).status(f"Customers/{customer_id}/licenses", **query) == (403, False)


def test_same_answers_are_the_default_for_every_reseller(sandbox: Sandbox) -> None:
    with running_sandbox(TENANT) as by_default:
        api = Api(by_default)
        for customer_id, instance_id, reseller_ids in quiet_scopes(by_default, relations=2):
            whole = TENANT.licenses(customer_id, instance_id, 0)
            answers = [licenses(api, customer_id, instance_id, reseller_id) for reseller_id in (None, *reseller_ids)]
            assert answers == [whole, whole, whole]
