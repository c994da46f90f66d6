"""Container images of this package and a team's code, for the pods of Kubeflow and for model servers."""
