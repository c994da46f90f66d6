"""What can go wrong with a dataset store, each with its facts."""

from collections.abc import Sequence

from mlplatform.errors import GateError, MlplatformError, UsageError


def _some(items: Sequence[object], most: int = 5) -> str:
    text = ", ".join(str(item) for item in items[:most])
    return f"{text} and {len(items) - most:,} more" if len(items) > most else text


class DatasetNotFoundError(UsageError):
    """The store holds no dataset of that name."""

    def __init__(self, dataset: str, store: str, known: Sequence[str]) -> None:
        super().__init__(dataset, store, known)
        self.dataset, self.store, self.known = dataset, store, known

    def __str__(self) -> str:
        there = f"it holds {_some(self.known)}" if self.known else "it holds none yet"
        return (
            f"the store {self.store} has no dataset {self.dataset!r}; {there}. "
            f"Commit one with: mlplatform datasets commit {self.dataset} EXAMPLES_DIR"
        )


class VersionNotFoundError(UsageError):
    """The dataset has no version of that name."""

    def __init__(self, dataset: str, version: str, known: Sequence[str]) -> None:
        super().__init__(dataset, version, known)
        self.dataset, self.version, self.known = dataset, version, known

    def __str__(self) -> str:
        return (
            f"dataset {self.dataset!r} has no version {self.version!r}; the newest are {_some(self.known)}. "
            f"List all of them with: mlplatform datasets log {self.dataset}"
        )


class AmbiguousVersionError(UsageError):
    """A digest prefix stands for several versions."""

    def __init__(self, dataset: str, version: str, matches: Sequence[str]) -> None:
        super().__init__(dataset, version, matches)
        self.dataset, self.version, self.matches = dataset, version, matches

    def __str__(self) -> str:
        return (
            f"{self.version!r} stands for several versions of {self.dataset!r}: {_some(self.matches)}. "
            "Give more of the digest, or the version's number."
        )


class BadNameError(UsageError):
    """A name of a dataset, tag or split that the store does not take."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self.kind, self.name = kind, name

    def __str__(self) -> str:
        if self.kind == "split":
            return (
                f"{ascii(self.name)[:300]} is not a valid split name: use 1 to 200 UTF-8 characters, without "
                "'/' and control characters."
            )
        return (
            f"{self.name!r} is not a valid {self.kind} name: use 1 to 100 letters, digits, '_', '-' and '.', "
            "beginning with a letter or digit; a tag is also not 'latest', 'v' with a number, or 8 or more "
            "hexadecimal digits."
        )


class NoSplitsError(UsageError):
    """A folder holds no TFX Examples."""

    def __init__(self, folder: str, found: Sequence[str]) -> None:
        super().__init__(folder, found)
        self.folder, self.found = folder, found

    def __str__(self) -> str:
        return (
            f"{self.folder} holds no Examples: expected folders named Split-<name> with TFRecord files, "
            f"found {_some(self.found) or 'nothing'}. Give the folder that an ExampleGen wrote."
        )


class CorruptRecordsError(MlplatformError):
    """A TFRecord file cannot be trusted: cut short, or its bytes do not fit their checksums."""

    def __init__(self, path: str, offset: int, problem: str) -> None:
        super().__init__(path, offset, problem)
        self.path, self.offset, self.problem = path, offset, problem

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.problem} at byte {self.offset:,} of its (uncompressed) records. "
            "Nothing was committed; write the file anew and commit again."
        )


class IncompleteShardsError(MlplatformError):
    """Of a set of shards, whose names say how many they are, some are missing."""

    def __init__(self, folder: str, missing: Sequence[str]) -> None:
        super().__init__(folder, missing)
        self.folder, self.missing = folder, missing

    def __str__(self) -> str:
        return (
            f"{self.folder} lacks {len(self.missing):,} shard(s) of its set: {_some(self.missing)}. "
            "Nothing was committed; wait until its writer is done, or write the Examples anew."
        )


class SourceChangedError(MlplatformError):
    """A file changed while it was being committed."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return (
            f"{self.path} changed while it was read. Nothing was committed; commit again when its writer is "
            "done."
        )


class StoreFormatError(MlplatformError):
    """A file of the store has a format that this version of mlplatform does not read."""

    def __init__(self, path: str, found: str, known: str) -> None:
        super().__init__(path, found, known)
        self.path, self.found, self.known = path, found, known

    def __str__(self) -> str:
        return (
            f"{self.path} has format {self.found}, and this mlplatform reads {self.known}. "
            "Use the mlplatform that wrote it, or a newer one."
        )


class CheckoutTargetError(UsageError):
    """The folder to check out to is not empty."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return (
            f"{self.folder} is not empty, and a checkout writes a whole folder. Name a new or an empty one."
        )


class MountPointError(CheckoutTargetError):
    """The folder to check out to is a mount point: it cannot be put in place in one step."""

    def __str__(self) -> str:
        return (
            f"{self.folder} is where a file system is mounted, and a checkout puts a whole folder in place. "
            "Name a new folder inside it."
        )


class RemoteTargetError(UsageError):
    """The folder to write to is a URL."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url

    def __str__(self) -> str:
        return (
            f"{self.url} is a URL, and a checkout or export is one step only on a local file system. Write "
            "to a local folder and copy that to the URL."
        )


class NoKeyError(UsageError):
    """A command needs the key of the records and the dataset declares none."""

    def __init__(self, dataset: str, verb: str) -> None:
        super().__init__(dataset, verb)
        self.dataset, self.verb = dataset, verb

    def __str__(self) -> str:
        return (
            f"{self.verb} finds records by their key, and dataset {self.dataset!r} declares none. "
            "Name the feature that identifies a record as the key."
        )


class KeyValuesError(UsageError):
    """As many values as key features are needed."""

    def __init__(self, value: str, key: Sequence[str]) -> None:
        super().__init__(value, key)
        self.value, self.key = value, key

    def __str__(self) -> str:
        return (
            f"{self.value!r} is no value of the key {', '.join(self.key)}: give {len(self.key)} value(s), "
            "separated by commas."
        )


class KeyMissingError(UsageError):
    """No record of a commit has the features that are declared as its key."""

    def __init__(self, dataset: str, key: Sequence[str], records: int) -> None:
        super().__init__(dataset, key, records)
        self.dataset, self.key, self.records = dataset, key, records

    def __str__(self) -> str:
        return (
            f"none of the {self.records:,} record(s) for {self.dataset!r} has the key {', '.join(self.key)}: "
            "it would protect and find nothing. Nothing was committed; name the feature that identifies an "
            "item as the key, or no feature at all."
        )


class CorrectionsError(UsageError):
    """A file of corrections cannot be applied; nothing was."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        super().__init__(source, problems)
        self.source, self.problems = source, problems

    def __str__(self) -> str:
        return (
            f"corrections {self.source}: {_some(self.problems)}. Give a CSV file with the columns of the "
            "key, such as item_id, and of the label."
        )


class NoTrainingSplitError(UsageError):
    """The split firewall is on, and no split of the commit is trained on, so it would protect nothing."""

    def __init__(self, dataset: str, splits: Sequence[str], training_splits: Sequence[str]) -> None:
        super().__init__(dataset, splits, training_splits)
        self.dataset, self.splits, self.training_splits = dataset, splits, training_splits

    def __str__(self) -> str:
        return (
            f"this commit to {self.dataset!r} has the splits {_some(self.splits)}, and none of them is a "
            f"training split ({_some(self.training_splits) or 'none is named'}). Nothing was committed; name "
            "the splits that are trained on (training_splits), or turn the firewall off "
            "(is_firewall_on=False)."
        )


class FixedTrainingSplitsError(UsageError):
    """Content that is a version already was committed with other training splits than that version has."""

    def __init__(self, dataset: str, version: str, splits: Sequence[str], named: Sequence[str]) -> None:
        super().__init__(dataset, version, splits, named)
        self.dataset, self.version, self.splits, self.named = dataset, version, splits, named

    def __str__(self) -> str:
        return (
            f"this content is {self.dataset}@{self.version} already, whose training splits are "
            f"{_some(sorted(self.splits))}, and the commit names {_some(sorted(self.named))}. A version "
            "keeps its own, because those after it are checked against what it held out. Nothing was "
            "committed; leave the training splits out here, and name them with the next change of the data."
        )


class CommitRecordsLostError(MlplatformError):
    """A commit does not have all the records that were read for it."""

    def __init__(self, dataset: str, what: str, expected: int, found: int) -> None:
        super().__init__(dataset, what, expected, found)
        self.dataset, self.what, self.expected, self.found = dataset, what, expected, found

    def __str__(self) -> str:
        return (
            f"commit to {self.dataset!r}: {self.what} has {self.expected:,} record(s), and {self.found:,} "
            "were placed. Nothing was committed. Commit again; if it happens again, report it."
        )


class CommitFilesLostError(MlplatformError):
    """Files that a commit wrote are no longer there."""

    def __init__(self, dataset: str, paths: Sequence[str]) -> None:
        super().__init__(dataset, paths)
        self.dataset, self.paths = dataset, paths

    def __str__(self) -> str:
        return (
            f"commit to {self.dataset!r}: {len(self.paths):,} file(s) that it wrote are not there: "
            f"{_some(self.paths, 3)}. Nothing was committed. Either a gc deleted them (keep its grace period "
            "longer than a commit takes), or the workers do not reach the store under its name (a folder of "
            "this machine needs workers on this machine). Then commit again."
        )


class SplitFirewallError(GateError):
    """Records that were held out in an earlier version would be trained on."""

    def __init__(self, dataset: str, records: Sequence[str], total: int) -> None:
        super().__init__(dataset, records, total)
        self.dataset, self.records, self.total = dataset, records, total

    def __str__(self) -> str:
        return (
            f"split firewall of {self.dataset!r}: {self.total:,} record(s) that were held out for evaluation "
            f"in an earlier version would enter training:{_listed(self.records, self.total)}\n"
            "Nothing was committed. Keep each item in its split: split by a hash of its id alone. (TFX's "
            "ExampleGens hash the whole record, so a changed cell moves a row, unless partition_feature_name "
            "in their output_config names the feature to hash.) Or, if the evaluation may be spoiled, commit "
            "with is_firewall_on=False."
        )


class LookAlikeFirewallError(GateError):
    """Photos that would be trained on look like photos that are held out."""

    def __init__(self, dataset: str, records: Sequence[str], total: int) -> None:
        super().__init__(dataset, records, total)
        self.dataset, self.records, self.total = dataset, records, total

    def __str__(self) -> str:
        return (
            f"split firewall of {self.dataset!r}: {self.total:,} photo(s) that would be trained on look like "
            "photos that are held out for evaluation, in this or an earlier version:"
            f"{_listed(self.records, self.total)}\n"
            "Nothing was committed. Keep photos that look alike in one split (split by the seller, for "
            "instance), or remove them. Or, if the evaluation may be spoiled, commit with "
            "near_duplicates_apart=False."
        )


class ForgottenRecordError(GateError):
    """An item that was erased on purpose came back."""

    def __init__(self, dataset: str, records: Sequence[str], total: int) -> None:
        super().__init__(dataset, records, total)
        self.dataset, self.records, self.total = dataset, records, total

    def __str__(self) -> str:
        return (
            f"{self.total:,} record(s) of this commit were erased from {self.dataset!r} on purpose, and the "
            f"source still has them: {_some(self.records)}. Nothing was committed and nothing of them is "
            "kept; delete them in the source (for photos: the files and their rows of a listing), ingest and "
            "commit again."
        )


class NotExamplesError(MlplatformError):
    """Records are no plain tf.Examples, so they have no columns."""

    def __init__(self, dataset: str, pack: str, records: int) -> None:
        super().__init__(dataset, pack, records)
        self.dataset, self.pack, self.records = dataset, pack, records

    def __str__(self) -> str:
        return (
            f"{self.records:,} record(s) of {self.dataset!r} (in pack {self.pack}) are no plain tf.Examples, "
            "so they cannot be exported as columns. Check the version out instead."
        )


class MixedTypesError(MlplatformError):
    """A feature holds text in some records and numbers in others, so it has no column."""

    def __init__(self, dataset: str, feature: str, kinds: Sequence[str], records: Sequence[str]) -> None:
        super().__init__(dataset, feature, kinds, records)
        self.dataset, self.feature, self.kinds, self.records = dataset, feature, kinds, records

    def __str__(self) -> str:
        found = " and ".join(
            f"{kind} (in record {record})" for kind, record in zip(self.kinds, self.records, strict=True)
        )
        return (
            f"feature {self.feature!r} of {self.dataset!r} holds {found}: one column cannot hold both. Write "
            "it as one type in the source and commit again, or check the version out instead."
        )


def _listed(records: Sequence[str], total: int) -> str:
    """Return some of the records, a line each, and how many more there are."""
    more = [f"and {total - len(records):,} more"] if total > len(records) else []
    return "".join(f"\n  {line}" for line in [*records, *more])
