"""Who is notified of what: `notices.yaml` in the root."""

from typing import Literal, get_args

from pydantic import Field

from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError, parse_yaml
from mlplatform.home import Home
from mlplatform.notices import SETTINGS_FILE
from mlplatform.storage import open_storage

Occasion = Literal["failed", "refused", "recovered", "rolled_back", "approval_wanted"]


class Mail(Config):
    """A mail by SMTP.

    Attributes:
        server: Host of the server.
        port: Its port.
        sender: Address that it comes from.
        to: Addresses that it goes to.
        tls: `starttls` (587), `implicit` (465), or `none`.
        user: Account at the server; empty for none.
        password_variable: Environment variable that holds the account's password.
    """

    server: str
    port: int = Field(587, ge=1, le=65535)
    sender: str
    to: list[str] = Field(min_length=1)
    tls: Literal["starttls", "implicit", "none"] = "starttls"
    user: str = ""
    password_variable: str = ""


class NoticeSettings(Config):
    """What `notices.yaml` holds.

    Attributes:
        notify: What is notified: `failed`, `refused`, `recovered`, `rolled_back`,
            `approval_wanted`.
        webhook: URL that a JSON document with the key `text` is posted to, as Slack takes it; empty for none.
        mail: A mail; None for none.
        command: A program with its arguments, which gets the notice as JSON on stdin; none where it is empty.
        dashboard: Address of the dashboard, for links; empty for no link.
        timeout_s: Seconds that each way may take.
    """

    notify: list[Occasion] = Field(default_factory=lambda: list(get_args(Occasion)))
    webhook: str = Field("", pattern="^(https?://.+)?$")
    mail: Mail | None = None
    command: list[str] = Field(default_factory=list)
    dashboard: str = Field("", pattern="^(https?://.+)?$")
    timeout_s: float = Field(10.0, gt=0, le=60)


def read_settings(home: Home) -> NoticeSettings | None:
    """Return a root's settings; None where it has none.

    Raises:
        ConfigError: The file cannot be used.
        StoreAccessError: It cannot be read.
    """
    storage = open_storage(home.root)
    try:
        text = storage.read(SETTINGS_FILE).decode("utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ConfigError(SETTINGS_FILE, ["it is not UTF-8"]) from error
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(SETTINGS_FILE, [f"it is not YAML: {error}"]) from error
    if not isinstance(values, dict):
        raise ConfigError(SETTINGS_FILE, ["it does not hold keys and values"])
    return parse_config(NoticeSettings, values, source=SETTINGS_FILE)
