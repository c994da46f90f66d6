"""What happened: runs, verdicts, pushed models and where they came from. Plain files anywhere, no server."""

from mlplatform.registry.contents import tree_digest as tree_digest
from mlplatform.registry.models import ModelStore as ModelStore
from mlplatform.registry.models import ModelVersion as ModelVersion
from mlplatform.registry.push_record import Push as Push
from mlplatform.registry.version_files import check_model_name as check_model_name
