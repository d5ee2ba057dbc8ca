"""How the sandbox behaves where the API's reference leaves it open. All may be changed while it runs."""

from collections.abc import Callable
from typing import Any, Generic, TypedDict, TypeVar

from cockpit_source.sandbox.rate_limit import STYLES as LIMIT_STYLES

T = TypeVar("T")

Valid = tuple[str, Callable[[Any], bool]]
"""What is valid, in words and as a check."""


class SettingValues(TypedDict, total=False):
    """All settings by name, for those who pass them on; `Settings` explains them."""

    deleted_style: str
    provider_style: str
    reseller_answers: str
    deletion_delay_seconds: float
    deletion_outcome: str
    blocks_active_deletions: bool
    page_churn: int
    calls_per_second: float
    limit_style: str


class Setting(Generic[T]):
    """A setting that refuses wrong values with a ValueError."""

    def __init__(self, default: T, valid: Valid) -> None:
        self.default = default
        self.valid_text, self.is_valid = valid

    def __set_name__(self, owner: "type[Settings]", name: str) -> None:
        self.name = name
        owner.all_settings = {**owner.all_settings, name: self}

    def __get__(self, holder: "Settings", owner: object = None) -> T:
        value: T = holder.setting_values.get(self.name, self.default)
        return value

    def __set__(self, holder: "Settings", value: T) -> None:
        self.check(value)
        holder.setting_values[self.name] = value

    def check(self, value: object) -> None:
        """Raises ValueError, naming what is valid, for a wrong value."""
        if not self.is_valid(value):
            raise ValueError(f"{self.name} is {value!r}; it must be {self.valid_text}")


def _one_of(*choices: str) -> Valid:
    return f"one of {', '.join(choices)}", lambda value: isinstance(value, str) and value in choices


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")


_NUMBER: Valid = ("a number, 0 or more", _is_number)
_COUNT: Valid = ("a whole number, 0 or more", lambda value: _is_number(value) and isinstance(value, int))
_FLAG: Valid = ("true or false", lambda value: isinstance(value, bool))


class Settings:
    """The settings. `configure` changes several at once.

    * `deleted_style`: how a listed customer tells that it is deleted. is_deleted: member `isDeleted`;
      status: member `status`, {"name": "Deleted"} or {"name": "Active"}; none: nothing tells.
    * `provider_style`: how a provider instance tells its provider. name: `provider` is {"name": "Microsoft"};
      type: it is {"type": {"name": "Microsoft"}}; none: it is {}.
    * `reseller_answers`: whether a licence call with a reseller id gives the same rows as without, or parts
      that add up to them over all resellers of the customer.
    * `deletion_delay_seconds`: from the acceptance of a deletion until it shows.
    * `deletion_outcome`: how deletions accepted from now on end, Succeded (so spelled) or Failed.
    * `blocks_active_deletions`: whether a customer with an active subscription is refused with 400.
    * `page_churn`: after each of so many pages of customers a row moves to another page; counts down.
    * `calls_per_second`: API calls, not sign-ins, beyond so many are answered with 429 and Retry-After; 0: no limit.
    * `limit_style`: how they are counted. window: in any second; bucket: a bucket of a second's calls fills evenly;
      minute: sixty times as many in each minute.
    """

    all_settings: "dict[str, Setting[Any]]" = {}  # noqa: RUF012 - filled while the class is made, then read only

    deleted_style = Setting("is_deleted", _one_of("is_deleted", "status", "none"))
    provider_style = Setting("name", _one_of("name", "type", "none"))
    reseller_answers = Setting("same", _one_of("same", "parts"))
    deletion_delay_seconds = Setting[float](2, _NUMBER)
    deletion_outcome = Setting("Succeded", _one_of("Succeded", "Failed"))
    blocks_active_deletions = Setting(False, _FLAG)
    page_churn = Setting(0, _COUNT)
    calls_per_second = Setting[float](0, _NUMBER)
    limit_style = Setting("window", _one_of(*LIMIT_STYLES))

    def __init__(self, **settings: Any) -> None:
        self.setting_values: dict[str, Any] = {}
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """Change these settings; the others stay. Raises ValueError for a wrong one; then nothing is changed."""
        for name, value in settings.items():
            if name not in self.all_settings:
                raise ValueError(f"unknown setting {name!r}; valid are {', '.join(self.all_settings)}")
            self.all_settings[name].check(value)
        self.setting_values |= settings

    def settings(self) -> dict[str, Any]:
        """All settings as they are now."""
        return {name: self.setting_values.get(name, setting.default) for name, setting in self.all_settings.items()}
