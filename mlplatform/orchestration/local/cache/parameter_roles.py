"""The roles of a component's parameters: its own declaration, or what is known of TFX's components."""

import importlib
from collections.abc import Iterator
from typing import Any, get_args

from mlplatform.orchestration.local.errors import ParameterRoleError
from mlplatform.roles import FINGERPRINT, READ, WRITTEN, Role

# TFX's own components, by type; those derived from them inherit the roles.
_OF_TFX: dict[str, dict[str, Role]] = {
    "tfx.components.example_gen.component.FileBasedExampleGen": {
        "input_base": READ,
        "input_fingerprint": FINGERPRINT,
    },
    "tfx.components.pusher.component.Pusher": {"push_destination": WRITTEN},
}


def roles_of(component: str) -> dict[str, Role]:
    """Return the declared roles per parameter.

    Args:
        component: The component's type, as a compiled pipeline names it: `package.module.Class`.

    Raises:
        ParameterRoleError: One of the roles is unknown.
    """
    roles: dict[str, Role] = {}
    for declared in _declarations(component):
        for parameter, role in declared.items():
            if role not in get_args(Role):
                raise ParameterRoleError(component, parameter, role)
        roles |= declared
    return roles


def _declarations(component: str) -> Iterator[dict[str, Role]]:
    """Yield the roles that the component's classes declare, the most general class first."""
    module, _, name = component.rpartition(".")
    try:
        found: Any = getattr(importlib.import_module(module), name, None) if module else None
    except ImportError:  # a compiled pipeline of code that is not here
        found = None
    for base in reversed(getattr(found, "__mro__", (found,))):
        yield _OF_TFX.get(f"{getattr(base, '__module__', '')}.{getattr(base, '__qualname__', '')}", {})
        own = getattr(base, "__dict__", {})
        yield getattr(own.get("SPEC_CLASS"), "PARAMETER_ROLES", {})
        yield own.get("PARAMETER_ROLES", {})
