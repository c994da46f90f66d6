"""A Kubeflow Pipelines cluster in a test: what its server refuses, and what its driver and launcher do.

The behaviour is that of Kubeflow Pipelines 2.17 (server, driver, launcher) with Argo 4.0, as far as packages
and containers meet it; Kubernetes itself is real, where one is asked for, or else left out.
"""

from mlplatform.testing.kubeflow.errors import RefusedError as RefusedError
from mlplatform.testing.kubeflow.recurring import RecurringRun as RecurringRun
from mlplatform.testing.kubeflow.server import submit as submit
from mlplatform.testing.kubeflow.simulator import SimulatedRun as SimulatedRun
from mlplatform.testing.kubeflow.simulator import Simulator as Simulator
from mlplatform.testing.kubeflow.simulator import TaskResult as TaskResult
