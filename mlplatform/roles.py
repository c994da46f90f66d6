"""What a component's parameters are to it, so that a runner's cache knows what a result depends on.

A component declares the roles where its name, its value or its type cannot tell them, as `PARAMETER_ROLES` of
its spec class, or of the component itself:

    class MySpec(component_spec.ComponentSpec):
        PARAMETER_ROLES = {"photos_dir": READ, "index_dir": WRITTEN}
"""

from typing import Literal

Role = Literal["read", "written", "value", "fingerprint"]

# Files or folders that the component reads: their content decides on the result.
READ: Role = "read"
# A place that the component writes to, whatever lies there: only the place itself counts.
WRITTEN: Role = "written"
# A plain value, also where a file or a folder has this name, or where the driver looks into what it names and
# adds what it found to the parameters.
VALUE: Role = "value"
# Identifies what the parameters that are read name, by times or the like: does not count where their content
# was read.
FINGERPRINT: Role = "fingerprint"
