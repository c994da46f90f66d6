"""Why an image cannot be built."""

from collections.abc import Sequence

from mlplatform.errors import MlplatformError, UsageError


class ImageCodeError(UsageError):
    """What is to be copied into an image is not code that it can hold."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return (
            f"code for the image {self.path!r}: {self.problem}. Give a project with pyproject.toml or "
            "setup.py, a folder of modules or packages, a .py file or a wheel."
        )


class ContextFolderError(UsageError):
    """The folder for a build context holds something else."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"{self.folder} is not empty and no build context; name another folder, or remove it first"


class WheelError(MlplatformError):
    """A project cannot be made into a wheel."""

    def __init__(self, project: str, output: str) -> None:
        super().__init__(project, output)
        self.project, self.output = project, output

    def __str__(self) -> str:
        return f"no wheel can be built of {self.project}: {self.output[-2000:].strip()}"


class NoBuilderError(MlplatformError):
    """Nothing on this machine can build an image.

    Attributes:
        found: One sentence for each builder that was looked for.
    """

    def __init__(self, found: Sequence[str]) -> None:
        super().__init__(found)
        self.found = found

    def __str__(self) -> str:
        return (
            f"no image can be built here: {'; '.join(self.found)}. Install buildah, podman or docker, "
            "or write the build context alone and build it elsewhere: any builder of Dockerfiles takes it."
        )


class BuildFailedError(MlplatformError):
    """The builder ended with an error; what it printed came before."""

    def __init__(self, command: str, status: int) -> None:
        super().__init__(command, status)
        self.command, self.status = command, status

    def __str__(self) -> str:
        return f"{self.command} ended with status {self.status}; its output is above"
