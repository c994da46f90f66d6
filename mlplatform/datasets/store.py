"""The dataset store: immutable, comparable, traceable versions of training data."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.datasets.format.manifest import Manifest
from mlplatform.datasets.line import Line, check_dataset_name, check_store, dataset_names
from mlplatform.storage import Storage, open_storage
from mlplatform.taxonomy import Taxonomy

if TYPE_CHECKING:
    from mlplatform.datasets.blame import Blame
    from mlplatform.datasets.class_counts import PackClasses
    from mlplatform.datasets.commit import Committed
    from mlplatform.datasets.diff import Place, RecordDelta, VersionDiff
    from mlplatform.datasets.forget import Forgotten
    from mlplatform.datasets.gc import Garbage
    from mlplatform.datasets.notes import Copy, Use
    from mlplatform.datasets.sample import SampledRecord
    from mlplatform.datasets.verify import Verified


class DatasetStore:
    """A folder, or an fsspec URL, that holds datasets; see docs/reference/dataset-format.md.

    Safe to use from several threads and processes at once. Nothing is created by naming a store.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Name a store.

        Args:
            url: A local folder, or an fsspec URL such as `s3://bucket/datasets`.
        """
        self._storage: Storage = open_storage(url)
        self._classes: PackClasses = {}

    @property
    def url(self) -> str:
        """The store's folder or URL."""
        return self._storage.url

    def __repr__(self) -> str:
        return f"DatasetStore({self.url!r})"

    def _repr_html_(self) -> str:
        from mlplatform.datasets.notebook import versions_table

        return versions_table(f"Datasets in {self.url}", [self.show(name) for name in self.names()])

    def names(self) -> list[str]:
        """Return the names of the datasets."""
        check_store(self._storage)
        return dataset_names(self._storage)

    def commit(
        self,
        dataset: str,
        examples: str | os.PathLike[str],
        *,
        key: Sequence[str] | None = None,
        label: str | None = None,
        message: str = "",
        training_splits: Sequence[str] | None = None,
        is_firewall_on: bool = True,
        workers: int = 0,
        beam_options: Sequence[str] | None = None,
        taxonomy: str | None = None,
    ) -> "Committed":
        """Commit Examples as a version; the same content as a version that is there makes no new one.

        Args:
            dataset: The dataset's name.
            examples: Folder or URL with `Split-<name>/` folders of TFRecord files, plain or gzip.
            key: Features that identify an item; None keeps what the version before declared. For content that
                is there already, another key or label is declared for the version that it is.
            label: Feature that holds the class; None keeps what the version before declared.
            message: Why, for the log.
            training_splits: Splits that are trained on; the items of all others are held out. None keeps what
                the version before declared, `train` for the first version. A version keeps its own.
            is_firewall_on: Fail where an item that was held out once would enter training.
            workers: Shards that are read at a time; 0 takes one per usable processor.
            beam_options: Flags of a Beam pipeline that does the work, such as `--runner=FlinkRunner`; none at
                all runs Beam in this process. None does without Beam: quicker where one machine is enough, up
                to some ten million records.
            taxonomy: The design of the classes, a YAML document (docs/reference/taxonomy.md); None keeps what
                the version before declared, "" declares none. For content that is there already, another one
                is declared for the version that it is.

        Returns:
            The version, and whether it is new.

        Raises:
            NoSplitsError: There are no Examples in the folder.
            IncompleteShardsError: A set of shards is not complete.
            CorruptRecordsError: A file is damaged or cut short; nothing is left of what was copied aside.
            SourceChangedError: A file changed while it was read.
            NoTrainingSplitError: The firewall is on, and no split is trained on.
            KeyMissingError: No record has the key.
            FixedTrainingSplitsError: The content is a version that has other training splits.
            SplitFirewallError: A held-out item would enter training.
            ForgottenRecordError: A record that was forgotten on purpose came back.
            TaxonomyError: The taxonomy does not fit.
        """
        from mlplatform.datasets.commit import CommitOptions, commit

        if taxonomy:
            Taxonomy.parse(taxonomy, f"of {dataset}")
        options = CommitOptions(
            key=key,
            label=label,
            message=message,
            training_splits=training_splits,
            is_firewall_on=is_firewall_on,
            workers=workers,
            taxonomy=taxonomy,
        )
        if beam_options is not None:
            from mlplatform.datasets.beam_commit import commit_with_beam

            return commit_with_beam(self._storage, dataset, examples, options, beam_options)
        return commit(self._storage, dataset, examples, options)

    def declare_taxonomy(self, dataset: str, version: str, text: str) -> Manifest:
        """Declare the design of the classes for a version; return the version with it.

        Later versions keep it, unless a commit declares another one.

        Args:
            dataset: The dataset's name.
            version: `v3`, a tag, the beginning of a digest, or `latest`.
            text: A YAML document; "" for none.

        Raises:
            TaxonomyError: It does not fit.
        """
        from mlplatform.datasets.notes import declare

        line = self._line(dataset)
        manifest = line.resolve(version)
        if text:
            Taxonomy.parse(text, f"of {dataset}@{manifest.version}")
        return declare(line, manifest, manifest.key, manifest.label, text)

    def log(self, dataset: str) -> list[Manifest]:
        """Return the versions of a dataset, the newest first. Raises DatasetNotFoundError."""
        line = self._line(dataset)
        line.resolve()
        return list(reversed(line.manifests))

    def show(self, dataset: str, version: str = "latest") -> Manifest:
        """Return a version.

        Args:
            dataset: The dataset's name.
            version: `v3`, a tag, the beginning of a digest, or `latest`.

        Raises:
            DatasetNotFoundError: There is no such dataset.
            VersionNotFoundError: It has no such version.
        """
        return self._line(dataset).resolve(version)

    def checkout(
        self,
        dataset: str,
        version: str,
        folder: str | os.PathLike[str],
        *,
        link: bool = True,
        place: str = "",
    ) -> Path:
        """Write a version as Examples that TFX reads, all of it in one step; the same files every time.

        Args:
            dataset: The dataset's name.
            version: `v3`, a tag, the beginning of a digest, or `latest`.
            folder: A new or an empty local folder.
            link: Link files that are wholly part of the version instead of copying them. They are the store's
                own, read-only files then: replace them, never change them in place.
            place: Where the records go in the end, such as a URL that the folder is copied to; noted as the
                checkout's place instead of the folder.

        Returns:
            The folder.

        Raises:
            CheckoutTargetError: The folder is not empty, or a mount point.
            RemoteTargetError: It is a URL.
            CorruptStoreError: A pack is missing, or has another size than was written.
        """
        from mlplatform.datasets.checkout import checkout

        line = self._line(dataset)
        return checkout(line, line.resolve(version), folder, link=link, place=place)

    def diff(
        self, dataset: str, old: str, new: str, *, key: Sequence[str] | None = None, label: str | None = None
    ) -> "VersionDiff":
        """Compare two versions.

        Args:
            dataset: The dataset's name.
            old: `v3`, a tag, the beginning of a digest, or `latest`.
            new: The same, for the version to compare with.
            key: Features that identify an item; None takes what the new version declares, none at all counts
                what changed as added and removed.
            label: Feature that holds the class; None takes what the new version declares, else `label`.
        """
        from mlplatform.datasets.diff import diff

        line = self._line(dataset)
        return diff(line, line.resolve(old), line.resolve(new), key, label)

    def deltas(self, difference: "VersionDiff") -> "list[RecordDelta]":
        """Return the records of a difference: applied to the old version, they give the new one."""
        from mlplatform.datasets.diff import record_deltas

        return record_deltas(self._line(difference.new.dataset), difference)

    def payloads(self, difference: "VersionDiff", places: "Sequence[Place]") -> list[bytes]:
        """Return the serialized records at some places of a difference; an erased one is all zero bytes."""
        from mlplatform.datasets.diff import read_payloads

        packs = [*difference.old.packs, *difference.new.packs]
        return read_payloads(self._line(difference.new.dataset), packs, places)

    def class_counts(self, dataset: str, version: str = "latest") -> dict[str, dict[str, int]]:
        """Return how many records of each class a version has, by split; empty splits where it has no label.

        The first call of a store reads all records; what is known of a pack is kept.
        """
        from mlplatform.datasets.class_counts import class_counts

        line = self._line(dataset)
        manifest = line.resolve(version)
        if not manifest.label:
            return {split: {} for split in manifest.splits}
        return class_counts(line, manifest, manifest.label, self._classes)

    def sample(
        self,
        dataset: str,
        version: str,
        count: int,
        *,
        splits: Sequence[str] | None = None,
        seed: int = 1,
    ) -> "list[SampledRecord]":
        """Return some different records of a version, each as likely, in a random order.

        Args:
            dataset: The dataset's name.
            version: `v3`, a tag, the beginning of a digest, or `latest`.
            count: How many at most, 0 or more.
            splits: Splits to take them from; None takes those that are held out.
            seed: The same seed chooses the same records of the same version.

        Raises:
            DatasetNotFoundError: There is no such dataset.
            VersionNotFoundError: It has no such version.
            CorruptStoreError: A pack is missing, or has another size than was written.
        """
        from mlplatform.datasets.sample import sample

        line = self._line(dataset)
        manifest = line.resolve(version)
        held_out = [split for split in manifest.splits if split not in manifest.training_splits]
        return sample(line, manifest, count, held_out if splits is None else splits, seed)

    def blamed_payloads(self, dataset: str, found: "Blame") -> list[bytes]:
        """Return the serialized records that `blame` found; an erased one is all zero bytes."""
        from mlplatform.datasets.diff import Place, read_payloads

        line = self._line(dataset)
        return read_payloads(line, line.packs, [Place(one.pack, one.row, "", 1) for one in found.records])

    def blame(self, dataset: str, value: str | Sequence[str], *, key: Sequence[str] | None = None) -> "Blame":
        """Trace an item through the versions, and through what was made from them.

        Args:
            dataset: The dataset's name.
            value: The item's key; with several key features one each, or one text with commas between. Where
                no item has this key, and `key` is not given, also the text of any feature, or the name of a
                file at the end of a path in one.
            key: Features that identify an item; None takes what the newest version declares, and then any
                feature.

        Raises:
            KeyValuesError: There is not a value for each key feature.
            NoKeyError: Several values are given, and no key is given or declared.
        """
        from mlplatform.datasets.blame import blame

        return blame(self._line(dataset), value, key)

    def erased(self, dataset: str, version: str = "latest") -> dict[str, int]:
        """Return how many records of a version were erased since, by split; only splits that lack some."""
        from mlplatform.datasets.checkout import erased_records

        line = self._line(dataset)
        return erased_records(line, line.resolve(version))

    def tag(self, dataset: str, version: str, tag: str) -> Manifest:
        """Let a tag name a version; return the version. Raises BadNameError."""
        from mlplatform.datasets.notes import tag_version

        line = self._line(dataset)
        manifest = line.resolve(version)
        tag_version(line, manifest, tag)
        return manifest

    def tags(self, dataset: str) -> dict[str, Manifest]:
        """Return the version that each tag names."""
        return self._line(dataset).tags()

    def record_use(self, dataset: str, version: str, kind: str, name: str, detail: str = "") -> None:
        """Note that something was made from a version, for `blame` and `forget` to name.

        Args:
            dataset: The dataset's name.
            version: `v3`, a tag, the beginning of a digest, or `latest`.
            kind: What was made: `model`, `push`, or a word of your own.
            name: Its name, such as `item_category@7`.
            detail: More, such as a run's id or a path.
        """
        from mlplatform.datasets.notes import record_use

        line = self._line(dataset)
        record_use(line, line.resolve(version), kind, name, detail)

    def uses(self, dataset: str) -> "list[Use]":
        """Return what was made from the versions of a dataset, as `record_use` noted it; the oldest first."""
        from mlplatform.datasets.notes import read_uses

        line = self._line(dataset)
        line.resolve()
        return read_uses(line)

    def copies(self, dataset: str) -> "list[Copy]":
        """Return where the versions of a dataset were read from and written to, the oldest first."""
        from mlplatform.datasets.notes import read_copies

        line = self._line(dataset)
        line.resolve()
        return read_copies(line)

    def export(self, dataset: str, version: str, folder: str | os.PathLike[str]) -> Path:
        """Write a version as Parquet, `<split>.parquet` per split, all of it in one step; return the folder.

        A feature that has one value in every record is a plain column, any other a list column.

        Raises:
            CheckoutTargetError: The folder is not empty, or a mount point.
            RemoteTargetError: It is a URL.
            NotExamplesError: Records are no plain tf.Examples.
            MixedTypesError: A feature holds text in some records and numbers in others.
            CorruptStoreError: A pack is missing or damaged.
        """
        from mlplatform.datasets.export import export

        line = self._line(dataset)
        return export(line, line.resolve(version), folder)

    def verify(self, dataset: str, version: str | None = None) -> "Verified":
        """Read everything and report whatever is not what was written.

        Args:
            dataset: The dataset's name.
            version: Check only what this version needs; None checks all, tags and notes included.
        """
        from mlplatform.datasets.verify import verify

        check_dataset_name(dataset)
        if dataset not in dataset_names(self._storage):
            self._line(dataset).resolve()
        return verify(self._storage, dataset, version)

    def gc(
        self, dataset: str | None = None, *, is_dry_run: bool = True, grace_s: float = 24 * 3600.0
    ) -> "list[Garbage]":
        """Find, and unless it is a dry run delete, what no version needs; never what one does.

        Args:
            dataset: The dataset's name; None takes all.
            is_dry_run: Only say what would be deleted.
            grace_s: Spare what is younger than this, in seconds: a commit from another machine may need it.

        Raises:
            DatasetNotFoundError: There is no such dataset, nor what a killed commit left of one.
        """
        from mlplatform.datasets.gc import collect, collect_all

        if dataset is None:
            return collect_all(self._storage, is_dry_run=is_dry_run, grace_s=grace_s)
        return collect(self._storage, dataset, is_dry_run=is_dry_run, grace_s=grace_s)

    def forget(
        self,
        dataset: str,
        value: str | Sequence[str],
        *,
        key: Sequence[str] | None = None,
        is_erasing: bool = False,
        why: str = "",
    ) -> "Forgotten":
        """Say which versions, models and pushes used an item; erase its records where that is asked.

        Erasing keeps every version's name and digest, and deletes what killed and refused commits left (on
        object storage, where a commit may be under way, `gc` does that). Checkouts, exports and TFX artifacts
        are copies: they are not erased, and `blame.copies` names those that the store knows. A commit that
        brings the item back fails, with the same content or another.

        Args:
            dataset: The dataset's name.
            value: The item's key; with several key features one each, or one text with commas between.
            key: Features that identify an item; None takes what the newest version declares.
            is_erasing: Erase the records' bytes from the store, for good.
            why: The reason, kept with the records' ids.
        """
        from mlplatform.datasets.forget import forget

        return forget(self._line(dataset), value, key, is_erasing=is_erasing, why=why)

    def relabel(
        self,
        dataset: str,
        corrections: str | os.PathLike[str],
        *,
        key: Sequence[str] | None = None,
        label: str | None = None,
        message: str = "",
    ) -> "Committed":
        """Commit the newest version with other labels: all or none, and no photo is ingested again.

        Only the records that change are read and written. Where no commit has read the dataset's keys yet,
        all records are read once for them.

        Args:
            dataset: The dataset's name.
            corrections: A CSV file with a column for each key feature, and one for the label.
            key: Features that identify an item; None takes what the newest version declares.
            label: Feature to correct; None takes what the newest version declares, else `label`.
            message: Why, for the log.

        Returns:
            The version, and whether it is new.

        Raises:
            CorrectionsError: The file does not fit, or the version lacks an item that it names.
            NoKeyError: No key is given or declared.
        """
        from mlplatform.datasets.relabel import relabel

        self._line(dataset).resolve()
        return relabel(self._storage, dataset, corrections, key=key, label=label, message=message)

    def _line(self, dataset: str) -> Line:
        return Line.read(self._storage, dataset)
