"""The lists of provider instances and of resellers."""

from typing import Any

from starlette.responses import Response

from cockpit_source.sandbox.access import check_is_csp
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.company_search import NAME_FIELD, CompanySearch
from cockpit_source.sandbox.contacts import draw_contact
from cockpit_source.sandbox.directory import MICROSOFT
from cockpit_source.sandbox.draws import Draws, derived_id
from cockpit_source.sandbox.pages import page_answer, read_page
from cockpit_source.sandbox.query import Query
from cockpit_source.sandbox.tenant import ProviderInstance, Reseller

_SEARCH_FIELDS = (NAME_FIELD, "InternalIdentifier", "MpnId")


def list_provider_instances(call: Call) -> Response:
    """A page of provider instances, sorted by provider."""
    query = Query(call.request)
    page = read_page(query)
    query.check()
    return page_answer(page, call.sandbox.directory.provider_instances(), lambda row: _instance_item(call, *row))


def list_resellers(call: Call) -> Response:
    """A page of resellers, for CSP clients; with a customer id, those that it has a relation with."""
    check_is_csp(call)
    query = Query(call.request)
    page = read_page(query)
    search = CompanySearch(query, _SEARCH_FIELDS)
    customer_id = query.uuid("customerId")
    instance_id = query.uuid("providerInstanceId", required=customer_id is not None)
    query.check()
    resellers = _related(call, customer_id, instance_id)
    found = search.arrange(resellers, lambda reseller, field: _searched_texts(call, reseller, field))
    return page_answer(page, found, lambda reseller: _reseller_item(call, reseller))


def _related(call: Call, customer_id: str | None, instance_id: str | None) -> list[Reseller]:
    """All resellers, or those of one customer in an instance that it is in. Every reseller is in Microsoft's."""
    tenant, directory = call.sandbox.tenant, call.sandbox.directory
    resellers = list(tenant.resellers)
    if customer_id is not None:
        customer = tenant.customer(customer_id)
        if customer is None or not call.sandbox.is_listed(customer, call.day):
            return []
        is_in = instance_id is not None and call.sandbox.has_instance(customer, instance_id)
        related = directory.reseller_ids(customer) if is_in else ()
        return [reseller for reseller in resellers if reseller.id in related]
    is_known = instance_id is None or any(instance.id == instance_id for instance in tenant.provider_instances)
    return resellers if is_known else []


def _searched_texts(call: Call, reseller: Reseller, field: str) -> list[str]:
    return [_mpn_id(call, reseller) if field == "MpnId" else _internal_identifier(reseller)]


def _internal_identifier(reseller: Reseller) -> str:
    return f"R-{reseller.id[:4]}"


def _mpn_id(call: Call, reseller: Reseller) -> str:
    return str(Draws(call.sandbox.tenant.seed, "mpn", reseller.id).between(1_000_000, 9_999_999))


def _reseller_item(call: Call, reseller: Reseller) -> dict[str, Any]:
    contact = draw_contact(Draws(call.sandbox.tenant.seed, "contact", reseller.id), reseller.id)
    del contact["middleName"]
    return {
        "id": reseller.id,
        "companyName": reseller.company_name,
        "country": "DE",
        "zipCode": contact.pop("zip"),
        **contact,
        "internalIdentifier": _internal_identifier(reseller),
        "taxId": None,
        "providerResellers": {
            instance.id: {"providerInstanceId": instance.id, "mpnId": _mpn_id(call, reseller)}
            for instance in call.sandbox.tenant.provider_instances
        },
        "customDomain": {},
    }


def _instance_item(call: Call, instance: ProviderInstance, provider: str) -> dict[str, Any]:
    is_microsoft = provider == MICROSOFT
    own_tenant_id = derived_id(call.sandbox.tenant.seed, "own tenant", instance.id)
    return {
        "id": instance.id,
        "alias": instance.alias,
        "instanceProviderId": own_tenant_id if is_microsoft else None,
        "imageUrl": None,
        "offerTypes": [{"name": "License" if is_microsoft else "SoftwareSubscription"}],
        "supportedCountries": ["AT", "CH", "DE"] if is_microsoft else None,
        "providerData": None,
        "provider": _provider(call.sandbox.provider_style, provider),
    }


def _provider(style: str, provider: str) -> dict[str, Any]:
    match style:
        case "name":
            return {"name": provider}
        case "type":
            return {"type": {"name": provider}}
    return {}
