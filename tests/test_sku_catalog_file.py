"""Microsoft's table of product names: read in whatever state it comes, or refused as a whole."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cockpit_source.errors import ConfigurationError
from cockpit_source.reference_csv import tidy
from cockpit_source.sku_catalog_file import CatalogTable, parse_catalog

NAMES_FILE = Path(__file__).with_name("product_names.csv")
HEADER = (
    "Product_Display_Name,String_Id,GUID,Service_Plan_Name,Service_Plan_Id,Service_Plans_Included_Friendly_Names\n"
)
E3 = "05e9a617-0261-4cee-bb44-138d3ef5d965"
E5 = "06ebc4ee-1bb5-47dd-8120-11324bc54e06"
POWER_BI = "f8a1db68-be16-40ed-86d5-cb42ce701560"
PLANNER = "53818b1b-4a27-454b-8896-0dba576410e6"
COPILOT = "639dec6b-bb19-468b-871c-c5c441c4b0cb"
VISIO = "c5928f49-12ba-48f7-ada3-0d743a3601d5"
MAIL_ONLY = "4b9405b0-7788-4568-add1-99614e613b69"

MAIL = ("d6e0e617-1874-593b-a1e3-13d415671e2b", "MAIL", "Mail (Plan 2)")
CHAT = ("a90a1f9c-350c-5429-bbd7-669c402024c7", "CHAT", "Chat")
FILES = ("32efc782-029a-5e4c-8ff1-a29f47353fd4", "FILES", "Files \u2013 Plan 1")
VOICE = ("6e885253-110a-563b-b958-160a2119cff5", "VOICE", "Telephone System")
SIGN_IN = ("7e282fbe-b157-5c9c-81d2-b25c6edea8b4", "SIGN_IN", "Sign-in, Plan 1")
REPORTS = ("0e6812ff-da67-54c5-9741-80aaab13d109", "REPORTS", "Reports")

# sku_id, part_number, official_name, other_names, service_plans
PRODUCTS: list[tuple[Any, ...]] = [
    (E3, "SPE_E3", "Microsoft 365 E3", None, 4),
    (E5, "SPE_E5", "Microsoft 365 E5", None, 6),
    (MAIL_ONLY, None, None, None, 1),
    (PLANNER, "PROJECTPROFESSIONAL", "Planner and Project Plan 3", '["Project Plan 3"]', 3),
    (
        COPILOT,
        "Microsoft_365_Copilot",
        "Microsoft Copilot for Microsoft 365",
        '["Copilot 365 \u2013 f\u00fcr alle", "Copilot"]',
        2,
    ),
    (VISIO, "VISIOCLIENT", "Visio Plan 2", None, 0),
    (POWER_BI, "POWER_BI_PRO", "Power BI Pro", None, 2),
]
PLANS: list[tuple[Any, ...]] = sorted(
    [
        *((E3, *plan) for plan in (MAIL, CHAT, FILES, SIGN_IN)),
        *((E5, *plan) for plan in (MAIL, CHAT, FILES, SIGN_IN, VOICE, REPORTS)),
        *((POWER_BI, *plan) for plan in (REPORTS, SIGN_IN)),
        *((PLANNER, *plan) for plan in (FILES, CHAT, SIGN_IN)),
        *((COPILOT, *plan) for plan in (CHAT, FILES)),
        (MAIL_ONLY, MAIL[0], "MAIL", None),
    ],
    key=lambda plan: plan[:2],
)
NOTES = [
    "sku_catalog: lines left out, because their GUID is not one: 3.",
    "sku_catalog: lines without a service plan, because its id is not a GUID: 1.",
    "sku_catalog: lines that tell a product and a service plan again, merged: 3.",
    "sku_catalog: products with several names, of which the most frequent counts: 2.",
]


def values(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in rows]


def check_names(table: CatalogTable) -> None:
    assert values(table.products) == PRODUCTS
    assert values(table.plans) == PLANS
    assert table.notes() == NOTES


def test_table_in_its_usual_state() -> None:
    table = parse_catalog(NAMES_FILE.read_bytes(), "names.csv")
    check_names(table)
    assert table.lines == 25


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace(HEADER, HEADER.upper()),
        lambda text: text.replace(HEADER, HEADER.replace("_", " ").replace(",", " , ").lower()),
        lambda text: text.replace(HEADER, "???" + HEADER),
        lambda text: text.replace(HEADER, "\u00ef\u00bb\u00bf" + HEADER),
        lambda text: "\n\n" + text,
        lambda text: _rewritten(text, lambda row: [*row, "More"[: len(row[0])]], ","),
        lambda text: _rewritten(text, lambda row: row[::-1], ","),
        lambda text: _rewritten(text, lambda row: row, ";"),
    ],
    ids=["same", "lines", "upper", "words", "marks", "bom", "blank", "extra", "reversed", "semicolons"],
)
def test_table_in_other_states_reads_the_same(encoding: str, change: Any) -> None:
    check_names(parse_catalog(change(NAMES_FILE.read_text("utf-8")).encode(encoding), "names.csv"))


def _rewritten(text: str, change: Any, separator: str) -> str:
    out = io.StringIO(newline="")
    rows = [[*row, *[""] * (6 - len(row))] for row in csv.reader(io.StringIO(text))]
    csv.writer(out, delimiter=separator).writerows(change(row) for row in rows)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "its first line is missing."),
        (b"\xff\xfe\x00\x01", "its first line is "),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "its first line is <!DOCTYPE html>"),
        (b"sku_id,unit_price,currency,valid_from\n", "its first line is sku_id, unit_price, currency, valid_from."),
        (HEADER.replace("GUID,", "").encode(), "its first line is Product_Display_Name, String_Id, Service_Plan_N"),
        (HEADER.replace("String_Id", "GUID").encode(), "its first line is Product_Display_Name, GUID, GUID"),
        (HEADER.encode(), "it has no line with the GUID of a product."),
        ((HEADER + "a,b,c,d,e,f\n").encode(), "it has no line with the GUID of a product."),
        ((HEADER + f'a,b,{E3},d,e,"f\ng,h\n').encode(), "it is not valid CSV at line 2: "),
        (b"x" * 200_000, "field larger than field limit"),
    ],
)
def test_other_file_is_refused_with_what_was_expected(content: bytes, reason: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_catalog(content, "/data/names.csv")
    message = str(refused.value)
    assert message.startswith("/data/names.csv is not Microsoft's table of product names: ")
    assert reason in message
    assert HEADER.strip().replace(",", ", ") in message
    assert "nothing was changed" in message
    assert len(message) < 600


_BLANKS = st.text(" \t\u00a0\u202f\u2007\u200b\ufeff", max_size=3)
_WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Z"]), min_size=1, max_size=8).map(tidy)
_NAMES = st.lists(_WORDS.filter(bool), min_size=1, max_size=3).map(" ".join)
_PLAN_IDS = st.uuids().map(str)
_TABLES = st.dictionaries(
    st.uuids().map(str),
    st.tuples(_NAMES, _NAMES, st.dictionaries(_PLAN_IDS, st.tuples(_NAMES, _NAMES), min_size=1, max_size=3)),
    min_size=1,
    max_size=4,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(table=_TABLES, data=st.data())
def test_dirty_table_reads_as_the_clean_one(table: dict[str, Any], data: st.DataObject) -> None:
    """Blanks of every kind around and between words, ids in either case, lines repeated and in any order."""

    def dirty(text: str) -> str:
        inner = data.draw(st.sampled_from([" ", "\u00a0", " \u00a0 "]))
        return data.draw(_BLANKS) + text.replace(" ", inner) + data.draw(_BLANKS)

    lines = [
        [name, part, data.draw(st.sampled_from([sku, sku.upper()])), plan_name, plan, friendly]
        for sku, (name, part, plans) in table.items()
        for plan, (plan_name, friendly) in plans.items()
        for _ in range(data.draw(st.integers(1, 2)))
    ]
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(HEADER.strip().split(","))
    for line in data.draw(st.permutations(lines)):
        writer.writerow([dirty(cell) for cell in line])
    read = parse_catalog(out.getvalue().encode(), "names.csv")
    assert values(read.products) == [
        (sku, part, name, None, len(plans)) for sku, (name, part, plans) in sorted(table.items())
    ]
    assert values(read.plans) == [
        (sku, plan, *names) for sku, (_, _, plans) in sorted(table.items()) for plan, names in sorted(plans.items())
    ]


def test_other_names_are_json() -> None:
    names = [row["other_names"] for row in parse_catalog(NAMES_FILE.read_bytes(), "x").products]
    assert json.loads(names[4]) == ["Copilot 365 \u2013 f\u00fcr alle", "Copilot"]
