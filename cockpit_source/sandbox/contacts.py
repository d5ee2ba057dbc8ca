"""Invented people and addresses. Mail addresses end in .example, which belongs to nobody."""

from typing import Any

from cockpit_source.sandbox.draws import Draws

_FIRST_NAMES = ("Zosia", "Björn", "Amélie", "Nikos", "Ioana", "Haruki", "Oksana", "Leila", "Tariq", "Maeve", "Inês")
_LAST_NAMES = ("Pfannkuchen", "Ångström", "Croissant", "Żurek", "Teapot", "Moonbeam", "Nebel", "Quince", "O'Biscuit")
_MIDDLE_NAMES = ("Oda", "Luz", "Kai")
_CITIES = ("Keksheim", "Port Waffle", "Saint-Croissant", "Mjölkby", "Żabowo", "Nueva Galleta", "Teapot-on-Sea")
_STREETS = ("Mondgasse", "Rue du Hérisson", "Fog Lane", "Calle Caracol", "Papierwalweg")
_STATES = ("Nordmond", "Südmond", "Old Biscuitshire")
_FOLDED = str.maketrans("öéńżåüêłś'", "oenzauels ")


def draw_contact(draws: Draws, key: str) -> dict[str, Any]:
    """Address and contact of a company as customers name the fields, `zip` included.

    `key` (an id) tells the mail domains of companies apart. Second address line, middle name and phone
    may be None.
    """
    first, last = draws.pick(_FIRST_NAMES), draws.pick(_LAST_NAMES)
    return {
        "addressLine1": f"{draws.pick(_STREETS)} {draws.between(1, 99)}",
        "addressLine2": "2nd floor" if draws.chance(0.2) else None,
        "city": draws.pick(_CITIES),
        "state": draws.pick(_STATES),
        "zip": f"{draws.between(10_000, 99_999)}",
        "firstName": first,
        "middleName": draws.pick(_MIDDLE_NAMES) if draws.chance(0.2) else None,
        "lastName": last,
        "email": f"{_fold(first)}.{_fold(last)}@{mail_domain(key)}",
        "phone": f"+999 555 {draws.between(100_000, 999_999)}" if draws.chance(0.9) else None,
    }


def mail_domain(key: str) -> str:
    """A domain for the company with this id."""
    return f"firm-{key[:8]}.example"


def _fold(name: str) -> str:
    return name.lower().translate(_FOLDED).replace(" ", "")
