"""How long runs and withdrawn models are kept: `retention.yaml` in the root."""

from pydantic import Field

from mlplatform.config import Config, parse_config
from mlplatform.config_file import ConfigError, parse_yaml
from mlplatform.home import Home
from mlplatform.storage import open_storage

POLICY_FILE = "retention.yaml"


class RetentionPolicy(Config):
    """What `retention.yaml` holds.

    Attributes:
        keep_runs: The newest runs of each pipeline that are kept.
        keep_days: Days for which every run is kept, whatever their number.
        keep_withdrawn_days: Days for which a model version that was rolled back is kept, and can be promoted
            again.
    """

    keep_runs: int = Field(50, ge=1)
    keep_days: float = Field(30.0, ge=0)
    keep_withdrawn_days: float = Field(90.0, ge=0)


def read_policy(home: Home) -> RetentionPolicy | None:
    """Return a root's policy; None where it has none.

    Raises:
        ConfigError: The file cannot be used.
        StoreAccessError: It cannot be read.
    """
    try:
        values = parse_yaml(open_storage(home.root).read(POLICY_FILE).decode("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ConfigError(POLICY_FILE, [f"it is not YAML in UTF-8: {error}"]) from error
    if not isinstance(values, dict):
        raise ConfigError(POLICY_FILE, ["it does not hold keys and values"])
    return parse_config(RetentionPolicy, values, source=POLICY_FILE)
