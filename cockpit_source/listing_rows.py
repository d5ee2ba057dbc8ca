"""Pure functions from the API's customers, provider instances, resellers and GDAP relationships to rows and scopes.

Objects and their fields: the pages operation-get-v1-customers, -providers-instances, -resellers and
-customers-parameter-delegated-admin-relationships of https://developer.cloudcockpit.com/operation/
(checked 2026-11-24 against the project's contract notes). What tells a deleted customer or a Microsoft instance is
not documented: here are the members that would say so if they are there; nothing is left out where none of them is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from cockpit_source.redaction import redact_tree
from cockpit_source.scopes import Scope
from cockpit_source.tables import CONTACT_COLUMNS
from cockpit_source.transforms import clean_text, is_uuid

Row = dict[str, Any]

_CONTACT_FIELDS = dict(
    zip(
        CONTACT_COLUMNS,
        (
            *("addressLine1", "addressLine2", "city", "state", "zip", "firstName", "middleName", "lastName"),
            *("email", "phone", "taxId"),
        ),
        strict=True,
    )
)
_DELETED_FLAGS = ("isDeleted", "deleted")
_DELETED_TIMES = ("deletedAt", "deletedOn", "deletedDate", "deletionDate")
# not `state`, which is a part of the address
_STATUS_MEMBERS = ("status", "customerStatus", "lifecycleStatus")
_NAME_MEMBERS = ("name", "displayName", "type", "providerType", "kind", "title", "key")
_MISSING_TIME = "0001-01-01"


class UnfitObject(ValueError):
    """An object of a listing cannot be used; the message says why."""


def to_customer(item: object, *, contact_data: bool) -> Row:
    """A row of `customers`, and `is_deleted` beside it.

    Raises:
        UnfitObject: it has no usable id.
    """
    customer = _as_object(item, "customer")
    return {
        "id": _read_id(customer, "customer"),
        **_read_company(customer, contact_data),
        "reseller_id": _read_reseller_id(customer),
        "provider_customers": _describe_provider_customers(customer),
        "is_deleted": is_deleted(customer),
    }


def to_provider_instance(item: object) -> Row:
    """A row of `provider_instances`. Raises UnfitObject without a usable id."""
    instance = _as_object(item, "provider instance")
    return {
        "id": _read_id(instance, "provider instance"),
        "alias": _text(instance.get("alias")),
        "instance_provider_id": _text(instance.get("instanceProviderId")),
        "provider": _to_json(instance.get("provider")),
        "is_microsoft": is_microsoft(instance),
        "is_deleted": False,
    }


def to_reseller(item: object, *, contact_data: bool) -> Row:
    """A row of `resellers`. Raises UnfitObject without a usable id."""
    reseller = _as_object(item, "reseller")
    row = _read_company(reseller | {"zip": reseller.get("zipCode")}, contact_data)
    return {"id": _read_id(reseller, "reseller"), **row, "is_deleted": is_deleted(reseller)}


def to_gdap_relationship(item: object, customer_id: str, provider_instance_id: str) -> Row:
    """A row of `gdap_relationships`. Raises UnfitObject without an id; older pages call it `id`."""
    relationship = _as_object(item, "GDAP relationship")
    relationship_id = _text(relationship.get("relationshipId")) or _text(relationship.get("id"))
    if not relationship_id:
        raise UnfitObject("a GDAP relationship has no id")
    return {
        "customer_id": customer_id,
        "provider_instance_id": provider_instance_id,
        "relationship_id": relationship_id,
        "display_name": _text(relationship.get("displayName")),
        "status": _name_of(relationship.get("status")),
        "duration": _text(relationship.get("duration")),
        "auto_extend_duration": _text(relationship.get("autoExtendDuration")),
        "is_deleted": False,
    }


def to_subscription(item: object) -> Row:
    """Id, provider instance, name and status of a subscription, each None where it is not told.

    Raises:
        UnfitObject: it is not an object.
    """
    subscription = _as_object(item, "subscription")
    return {
        "subscription_id": _text(subscription.get("id")),
        "provider_instance_id": _as_id(subscription.get("providerInstanceId")),
        "name": _text(subscription.get("subscriptionName")) or _text(subscription.get("offerName")),
        "status": _name_of(subscription.get("subscriptionStatus")),
    }


def has_active_gdap(rows: list[Row]) -> bool | None:
    """Whether one of the relationships is active; None where none is and one does not tell its status."""
    statuses = [row["status"] for row in rows]
    if any(status and status.casefold() == "active" for status in statuses):
        return True
    return None if None in statuses else False


def iter_scopes(item: Mapping[str, Any]) -> Iterator[Scope | None]:
    """The scopes of a customer: one per provider instance in which it exists; None for an entry that does not yet.

    `providerCustomers` is a map; the id is taken from the entry, else from the key.

    Raises:
        UnfitObject: an entry names no provider instance, or the reseller is not a UUID.
    """
    entries = item.get("providerCustomers")
    reseller_id = _read_reseller_id(item)
    for key, entry in _iter_entries(entries):
        if not _provider_customer_id(entry):
            yield None
            continue
        instance_id = _as_id(entry.get("providerInstanceId")) or _as_id(key)
        if instance_id is None:
            raise UnfitObject("an entry of providerCustomers names no provider instance")
        yield Scope(_read_id(item, "customer"), instance_id, reseller_id)


def iter_provider_instances(item: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Every provider instance that a customer names, and whether it exists there already. Nothing is passed over.

    Raises:
        UnfitObject: `providerCustomers` is missing or has another form, or an entry names no provider instance.
    """
    entries = item.get("providerCustomers", "")
    if not isinstance(entries, dict | list | None):
        raise UnfitObject("a customer has no providerCustomers, or none that can be read")
    for key, entry in _iter_entries(entries):
        instance_id = _as_id(entry.get("providerInstanceId")) or _as_id(key)
        if not entry or instance_id is None:
            raise UnfitObject("an entry of providerCustomers names no provider instance")
        yield instance_id, bool(_provider_customer_id(entry))


def is_deleted(item: Mapping[str, Any]) -> bool:
    """Whether a member of the object says that it is deleted; False where nothing tells."""
    if any(item.get(name) is True for name in _DELETED_FLAGS):
        return True
    moments = (_text(item.get(name)) for name in _DELETED_TIMES)
    if any(moment and not moment.startswith(_MISSING_TIME) for moment in moments):
        return True
    statuses = (_name_of(item.get(name)) for name in _STATUS_MEMBERS)
    return any(status is not None and status.casefold() == "deleted" for status in statuses)


def is_microsoft(instance: Mapping[str, Any]) -> bool | None:
    """Whether the provider of an instance is Microsoft; None where no member of it is a name."""
    provider = instance.get("provider")
    members = provider if isinstance(provider, dict) else {"name": provider}
    names = [name for member in _NAME_MEMBERS if (name := _name_of(members.get(member)))]
    if not names:
        return None
    return any("microsoft" in name.casefold() for name in names)


def _read_company(item: Mapping[str, Any], contact_data: bool) -> Row:
    return {
        "company_name": _text(item.get("companyName")),
        "country": _text(item.get("country")),
        "internal_identifier": _text(item.get("internalIdentifier")),
        **{column: _text(item.get(field)) if contact_data else None for column, field in _CONTACT_FIELDS.items()},
    }


def _read_reseller_id(customer: Mapping[str, Any]) -> str | None:
    value = customer.get("resellerId")
    if value in (None, ""):
        return None
    if (reseller_id := _as_id(value)) is None:
        raise UnfitObject("resellerId of a customer is not a UUID")
    return reseller_id


def _describe_provider_customers(customer: Mapping[str, Any]) -> str | None:
    ids = {
        _as_id(entry.get("providerInstanceId")) or str(key): _provider_customer_id(entry)
        for key, entry in _iter_entries(customer.get("providerCustomers"))
    }
    return _to_json(ids) if ids else None


def _iter_entries(entries: object) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
    """Keys and entries of `providerCustomers`, were it an array after all too."""
    if isinstance(entries, dict):
        pairs = list(entries.items())
    else:
        pairs = [(None, entry) for entry in entries] if isinstance(entries, list) else []
    for key, entry in pairs:
        yield key, entry if isinstance(entry, dict) else {}


def _provider_customer_id(entry: Mapping[str, Any]) -> str | None:
    value = entry.get("providerCustomerId")
    return _text(str(value)) if isinstance(value, int) and not isinstance(value, bool) else _text(value)


def _as_object(item: object, what: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise UnfitObject(f"a {what} is not an object")
    return item


def _read_id(item: Mapping[str, Any], what: str) -> str:
    if (found := _as_id(item.get("id"))) is None:
        raise UnfitObject(f"a {what} has no id, or one that is not a UUID")
    return found


def _as_id(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text.lower() if is_uuid(text) else None


def _name_of(value: object) -> str | None:
    """The text of an enumeration, which travels as an object with one member `name`, or as the text itself."""
    if isinstance(value, dict):
        value = value.get("name")
    return _text(value)


def _text(value: object) -> str | None:
    return clean_text(value).strip() or None if isinstance(value, str) else None


def _to_json(value: object) -> str | None:
    if value is None:
        return None
    return clean_text(json.dumps(redact_tree(value), ensure_ascii=False, sort_keys=True, separators=(",", ":")))
