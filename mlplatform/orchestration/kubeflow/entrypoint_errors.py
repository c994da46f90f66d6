"""What is wrong with what a container was started with."""

from collections.abc import Sequence

from mlplatform.errors import MlplatformError


class InvocationError(MlplatformError):
    """The command of a container is not one that our compiler writes."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"this container cannot run its task: {self.problem}. Compile the package again with the version "
            "of mlplatform that is in the image"
        )


class UnresolvedInputError(MlplatformError):
    """A node needs an input for which its resolver found nothing."""

    def __init__(self, node: str, inputs: Sequence[str], kind: str) -> None:
        super().__init__(node, inputs, kind)
        self.node, self.inputs, self.kind = node, inputs, kind

    def __str__(self) -> str:
        return (
            f"{self.node} has no {', '.join(self.inputs)}: the resolver before it found no artifact in "
            f"earlier runs, and {self.kind} cannot do without. Run the pipeline that makes it first, or make "
            "the input optional"
        )


class UnknownArtifactTypeError(MlplatformError):
    """An artifact is of a type that the image does not have."""

    def __init__(self, title: str, problem: str) -> None:
        super().__init__(title, problem)
        self.title, self.problem = title, problem

    def __str__(self) -> str:
        return (
            f"the artifact type {self.title!r} cannot be imported in this container: {self.problem}. Its "
            "name has to be the import path `module.Class`, and its module in the image"
        )


class UnknownStrategyError(MlplatformError):
    """A resolver asks for a lookup that there is none of on Kubeflow."""

    def __init__(self, strategy: str, known: Sequence[str]) -> None:
        super().__init__(strategy, known)
        self.strategy, self.known = strategy, known

    def __str__(self) -> str:
        return f"resolver strategy {self.strategy!r} is not supported; there is {', '.join(self.known)}"


class StrategyConfigError(MlplatformError):
    """The settings of a resolver's strategy do not fit it."""

    def __init__(self, strategy: str, problem: str) -> None:
        super().__init__(strategy, problem)
        self.strategy, self.problem = strategy, problem

    def __str__(self) -> str:
        return f"the resolver's strategy {self.strategy} cannot be used: {self.problem}"
