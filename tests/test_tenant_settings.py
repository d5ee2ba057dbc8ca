"""The settings of several tenants: what each takes from those of all, and every message about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support import new_id
from test_configuration import write_project

from cockpit_source import configured_tenants, resolve_settings
from cockpit_source.configuration import resolve_mart_settings, resolve_tenant_key
from cockpit_source.deletions.settings import resolve_deletion_settings
from cockpit_source.errors import ConfigurationError
from cockpit_source.settings import KEYS
from cockpit_source.source import cockpit_source
from cockpit_source.tenants import CREDENTIAL_KEYS, DATASET_KEYS, SCOPE_KEYS, merge_raw

COMMON = """
[sources.cockpit]
discover = true
max_attempts = 3
max_requests_per_second = 50
base_url = "https://api.example.com"
"""
NORTH = '[sources.cockpit.tenants.north]\ntenant = "north.example"\nclient_id = "n"\n'
SOUTH = '[sources.cockpit.tenants.south]\ntenant = "South.Example"\nclient_id = "s"\n'
CONFIG = COMMON + NORTH + SOUTH
SECRETS = """
[sources.cockpit.tenants.north]
client_secret = "north-secret"
[sources.cockpit.tenants.south]
client_secret = "south-secret"
"""


def refusal(name: str | None = None, **overrides: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        resolve_settings(name, **overrides)
    assert caught.value.exit_code == 2
    assert "-secret" not in str(caught.value)
    return str(caught.value)


def credentials(name: str) -> tuple[str | None, str | None, str | None]:
    found = resolve_settings(name).credentials
    return found.client_id, found.client_secret, found.access_token


def test_each_tenant_has_its_own_keys_and_takes_the_others_from_all(tmp_path: Path) -> None:
    write_project(tmp_path, CONFIG + 'max_attempts = 1\nscopes_file = "south.csv"\n', SECRETS)
    assert configured_tenants() == ["north", "south"]
    north, south = resolve_settings("north"), resolve_settings("south")
    assert (north.tenant, north.tenant_key, north.max_attempts, north.scopes.origin) == (
        *("north.example", "north.example", 3, "discover"),
    )
    assert (south.tenant, south.tenant_key, south.max_attempts, south.scopes.file) == (
        *("South.Example", "south.example", 1, "south.csv"),
    )
    assert {one.base_url for one in (north, south)} == {"https://api.example.com"}
    assert {one.max_requests_per_second for one in (north, south)} == {50}
    assert (credentials("north"), credentials("south")) == (("n", "north-secret", None), ("s", "south-secret", None))
    assert resolve_tenant_key("south") == "south.example"
    assert resolve_settings("south", max_attempts=7, discover=True).scopes.origin == "discover"


def test_environment_wins_for_one_tenant_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path, CONFIG, SECRETS)
    monkeypatch.setenv("SOURCES__COCKPIT__TENANTS__SOUTH__CLIENT_SECRET", "rotated")
    monkeypatch.setenv("SOURCES__COCKPIT__MAX_ATTEMPTS", "9")
    monkeypatch.setenv("SOURCES__COCKPIT__TENANTS__NORTH__MAX_ATTEMPTS", "2")
    assert (credentials("north"), credentials("south")) == (("n", "north-secret", None), ("s", "rotated", None))
    assert [resolve_settings(name).max_attempts for name in ("north", "south")] == [2, 9]


def test_tenants_from_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("west", "east_2"):
        prefix = f"SOURCES__COCKPIT__TENANTS__{name.upper()}__"
        values = {"TENANT": f"{name}.example".replace("_", "-"), "ACCESS_TOKEN": f"{name}-token", "DISCOVER": "true"}
        for key, value in values.items():
            monkeypatch.setenv(prefix + key, value)
    assert configured_tenants() == ["east_2", "west"]
    assert credentials("west") == (None, None, "west-token")
    assert resolve_settings("east_2").tenant_key == "east-2.example"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        # another part of the portal of all
        ({"tenant_key": "part"}, ("c", "cs", None)),
        # a token of its own instead of the pair of all, and none of the pair beside it
        ({"access_token": "t"}, (None, None, "t")),
        ({"client_id": "o", "client_secret": "os"}, ("o", "os", None)),
        # half a pair is not completed by the other half of somebody else's
        ({"client_id": "o"}, ("o", None, None)),
        # credentials are never sent elsewhere than where they stand
        ({"tenant": "other.example"}, (None, None, None)),
        ({"base_url": "https://other.example"}, (None, None, None)),
        ({"token_url": "https://other.example"}, (None, None, None)),
        ({"token_scope": "other"}, (None, None, None)),
        # the placeholder of the example file is no value
        ({"client_secret": "..."}, ("c", "cs", None)),
    ],
)
def test_credentials_of_all_are_for_their_portal_only(own: dict[str, str], expected: tuple[str | None, ...]) -> None:
    common = {"tenant": "all.example", "client_id": "c", "client_secret": "cs", "discover": True}
    merged = merge_raw(common, own)
    assert tuple(merged.get(name) for name in ("client_id", "client_secret", "access_token")) == expected
    assert merged["discover"] is True


def test_one_way_of_listing_scopes_replaces_the_other() -> None:
    common = {"customers": [new_id(1)], "provider_instances": [new_id(0)], "max_attempts": 3}
    assert merge_raw(common, {"discover": True}) == {"discover": True, "max_attempts": 3}
    assert merge_raw(common, {"customers": [new_id(2)]}) == {"customers": [new_id(2)], "max_attempts": 3}


def test_groups_are_of_known_keys() -> None:
    assert (SCOPE_KEYS | CREDENTIAL_KEYS | DATASET_KEYS) - KEYS.keys() == frozenset()


@pytest.mark.parametrize(
    ("config", "secrets", "name", "says"),
    [
        (
            *(CONFIG.replace('tenant = "South', 'max_attempts = 99\nflavour = 1\ntenant = "South'), SECRETS, "south"),
            [
                "The configuration of tenant south does not work:\n",
                "flavour is not a key of this source",
                "max_attempts is out of range (got 99)",
                "under [sources.cockpit.tenants.south], what holds for all tenants under [sources.cockpit]",
                "for example as SOURCES__COCKPIT__TENANTS__SOUTH__TENANT",
            ],
        ),
        (
            CONFIG.replace('tenant = "South.Example"\n', ""),
            SECRETS,
            "south",
            ["tenant is missing. Valid: the domain"],
        ),
        (
            *(CONFIG.replace("South.Example", "NORTH.example"), SECRETS, "south"),
            ["tenant_key north.example is also that of north, so their rows could not be told apart."],
        ),
        (
            *(CONFIG.replace("South.Example", "NORTH.example"), SECRETS, "north"),
            ["tenant_key north.example is also that of south, so their rows could not be told apart."],
        ),
        (
            *(CONFIG.replace("[sources.cockpit]", '[sources.cockpit]\nclient_id = "c"'), "", "south"),
            ["client_secret is missing: the two go together."],
        ),
        (
            CONFIG.replace('client_id = "s"\n', ""),
            '[sources.cockpit]\nclient_id = "c"\nclient_secret = "all-secret"\n',
            "south",
            [
                "client_id and client_secret are missing",
                "the credentials under [sources.cockpit] are not used here: they are sent only for tenants that set "
                "none of base_url, tenant, token_scope, token_url themselves. Give this tenant its own.",
            ],
        ),
        (
            *(CONFIG + 'client_secret = "south-secret"\n', SECRETS, "south"),
            [
                "client_secret stands in config.toml, a file that is meant to be shared. Move it to "
                ".dlt/secrets.toml or to SOURCES__COCKPIT__TENANTS__SOUTH__CLIENT_SECRET;"
            ],
        ),
        (
            *(CONFIG + 'reseller_scopes = "parts"\nrefresh_marts = true\n', SECRETS, "south"),
            [
                "refresh_marts is about the dataset, which all tenants share: set it under [sources.cockpit] only.",
                "reseller_scopes is about the dataset",
            ],
        ),
        (
            *(CONFIG + "[sources.cockpit.tenants.south.deletions]\nenabled = true\n", SECRETS, "south"),
            ["[sources.cockpit.tenants.south.deletions] cannot be: deletions are carried out for one tenant."],
        ),
        (
            *(CONFIG.replace("tenants.south", "tenants.south.example"), "", "south"),
            ["[sources.cockpit.tenants.south.example] is a table inside of a tenant's. A NAME has no dots;"],
        ),
        (
            *(CONFIG.replace("tenants.south", 'tenants."South Ltd"'), "", "South Ltd"),
            ['The name of a tenant does not fit: "South Ltd" in [sources.cockpit.tenants.NAME]. Valid: lower-case'],
        ),
        (CONFIG, SECRETS, "east", ['There is no tenant "east". Configured are north and south,']),
        (COMMON, "", "east", ["No tenant has a table [sources.cockpit.tenants.NAME]: all settings are those of"]),
        (
            CONFIG,
            SECRETS,
            None,
            ["This is about one tenant, and this project has tenants of its own (north and south"],
        ),
        # what is wrong for all is told of each, in words about all
        (
            *(CONFIG.replace("max_attempts", "max_attemps"), SECRETS, "north"),
            ["The configuration does not work:\n  - max_attemps is not a key of this source; did you mean"],
        ),
        (
            *("[[sources.cockpit.tenants]]\n" + 'tenant = "x.example"\n', "", None),
            ["tenants is no key: each tenant has a table of its own, [sources.cockpit.tenants.NAME]."],
        ),
    ],
)
def test_messages(tmp_path: Path, config: str, secrets: str, name: str | None, says: list[str]) -> None:
    write_project(tmp_path, config, secrets)
    told = refusal(name)
    assert [words for words in says if words not in told] == []


def test_a_tenant_that_does_not_work_costs_no_other(tmp_path: Path) -> None:
    write_project(tmp_path, CONFIG.replace("tenants.south", 'tenants."South Ltd"'), SECRETS)
    assert configured_tenants() == ["north", "South Ltd", "south"]
    assert credentials("north") == ("n", "north-secret", None)


def test_what_only_looks_at_the_warehouse_needs_no_more_than_the_key(tmp_path: Path) -> None:
    write_project(tmp_path, CONFIG + "max_attempts = 99\nrefresh_marts = true\n", "")
    assert resolve_tenant_key("south") == "south.example"
    settings = resolve_mart_settings("south", sku_catalog="names.csv")
    assert (settings.tenant_key, settings.sku_catalog) == ("south.example", "names.csv")
    write_project(tmp_path, CONFIG + 'reseller_scopes = "parts"\n', "")
    with pytest.raises(ConfigurationError, match="reseller_scopes is about the dataset"):
        resolve_mart_settings("south")


def test_lists_and_rules_of_marts(tmp_path: Path) -> None:
    common = COMMON + 'price_list = "all.csv"\nreseller_scopes = "parts"\n'
    write_project(tmp_path, common + NORTH + SOUTH + 'price_list = "south.csv"\n', SECRETS)
    found = [resolve_mart_settings(name) for name in ("north", "south")]
    assert [(one.price_list, one.reseller_scopes) for one in found] == [("all.csv", "parts"), ("south.csv", "parts")]


def test_the_bare_source_takes_a_name_too(tmp_path: Path) -> None:
    write_project(tmp_path, CONFIG, SECRETS)
    assert cockpit_source(tenant_name="north").name == "cockpit"
    with pytest.raises(ConfigurationError, match="This is about one tenant"):
        cockpit_source()


def test_settings_given_whole_need_no_name(tmp_path: Path) -> None:
    """As in a script, or the demo, beside a configuration of many tenants."""
    write_project(tmp_path, CONFIG, SECRETS)
    given = resolve_settings(tenant="demo.example", client_id="d", client_secret="ds", discover=True)
    assert (given.tenant_key, given.credentials.client_secret) == ("demo.example", "ds")


def test_deletions_are_refused(tmp_path: Path) -> None:
    write_project(tmp_path, CONFIG, SECRETS)
    with pytest.raises(ConfigurationError, match=r"Deletions are carried out for one tenant.*project folder of one"):
        resolve_deletion_settings(enabled=True)
