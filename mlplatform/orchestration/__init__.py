"""Running pipelines: on this machine (`local`), on Kubeflow Pipelines (`kubeflow`)."""
