"""The audit log. It holds the deletions; the names of an entry's members are the sandbox's own."""

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from cockpit_source.sandbox.access import forbidden, may_see
from cockpit_source.sandbox.calls import Call
from cockpit_source.sandbox.deletions import PROCESSING, SUCCEEDED, Deletion
from cockpit_source.sandbox.draws import derived_id
from cockpit_source.sandbox.pages import page_answer, read_page
from cockpit_source.sandbox.query import Query

_STATUSES = (PROCESSING, SUCCEEDED, "Failed")


def list_audit_logs(call: Call) -> Response:
    """A page of entries, newest first: by default those of the last month."""
    query = Query(call.request)
    page = read_page(query)
    now = datetime.now(UTC)
    start, end = query.moment("StartDate", now - timedelta(days=30)), query.moment("EndDate", now)
    operations = {name for name in query.text("Operations").casefold().split("|") if name}
    status = query.choice("Status", _STATUSES)
    reseller, customer = query.text("Reseller").casefold(), query.text("Customer").casefold()
    reseller_id = query.uuid("resellerId")
    query.check()
    if call.client.role == "reseller" and reseller_id not in (None, call.own_reseller_id):
        raise forbidden()
    entries = [
        entry
        for entry in reversed(call.sandbox.deletions.all())
        if may_see(call, entry.customer)
        and start <= entry.accepted_at <= end
        and (not operations or entry.operation.casefold() in operations)
        and status in ("", entry.status)
        and customer in entry.customer.company_name.casefold()
        and reseller in (_reseller_name(call, entry) or "").casefold()
        and reseller_id in (None, entry.customer.reseller_id)
    ]
    return page_answer(page, entries, lambda entry: _item(call, entry))


def _reseller_name(call: Call, entry: Deletion) -> str | None:
    reseller = call.sandbox.directory.resellers.get(entry.customer.reseller_id or "")
    return reseller.company_name if reseller else None


def _item(call: Call, entry: Deletion) -> dict[str, Any]:
    return {
        "id": derived_id(entry.accepted_at.isoformat(), entry.customer.id, entry.operation, entry.correlation_id),
        "operation": {"name": entry.operation},
        "status": {"name": entry.status},
        "correlationId": entry.correlation_id,
        "customerId": entry.customer.id,
        "customerName": entry.customer.company_name,
        "providerInstanceId": entry.provider_instance_id,
        "resellerId": entry.customer.reseller_id,
        "resellerName": _reseller_name(call, entry),
        "userName": entry.client_id,
        "createdAt": _as_text(entry.accepted_at),
        "finishedAt": _as_text(entry.finished_at) if entry.finished_at else None,
    }


def _as_text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
