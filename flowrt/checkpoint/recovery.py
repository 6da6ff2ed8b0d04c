"""Which checkpoint a job goes on from, and what each operator of the new plan gets of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from flowrt.checkpoint.manifest import FormatError, Manifest
from flowrt.checkpoint.names import Made
from flowrt.checkpoint.store import DirectoryStore, UnreadableError
from flowrt.contract.errors import CheckpointError, ConfigError
from flowrt.contract.failpoints import failpoint
from flowrt.contract.snapshot import OperatorSnapshot, StateFile


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a job goes on from: a verified checkpoint, or nothing.

    `next_epoch` is the first that the job opens. `notes` say what was passed over, for people.
    """

    manifest: Manifest | None = None
    next_epoch: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def epoch(self) -> int | None:
        """The epoch restored; None for a start from nothing."""
        return None if self.manifest is None else self.manifest.epoch

    def parts(self, operator: str) -> list[OperatorSnapshot]:
        """Return what the former subtasks of an operator left; [] where there is nothing."""
        return [] if self.manifest is None else self.manifest.parts(operator)

    def state_files(self, operator: str, groups: range) -> list[StateFile]:
        """Return the state files for a new subtask, cut to its key groups, oldest first."""
        return cut_to_groups(self.parts(operator), groups)


async def recover(store: DirectoryStore) -> Recovery:
    """Choose the newest checkpoint that is whole; a damaged one is passed over with a note.

    Nothing written later by an older instance counts from then on. `CheckpointError` where there
    are checkpoints but none is whole, or where one cannot be read (a disk that fails for a moment
    takes nothing back), `OtherFlowError` where they belong to another flow.
    """
    found = await store.checkpoints()
    notes: list[str] = []
    for made in found:
        failpoint("manifest.chosen")
        manifest, problem = await _verified(store, made)
        if manifest is None:
            notes.append(f"checkpoint {made.epoch} is passed over: {problem}")
            continue
        if notes:
            notes.append(
                f"the job goes on from checkpoint {made.epoch}: what followed it is read again, "
                "and may be seen twice where a sink cannot take it back"
            )
        await store.resume_from(manifest.epoch)
        # An epoch that may have been committed does not give its number to another one.
        return Recovery(manifest, max(other.epoch for other in found) + 1, notes)
    if found:
        raise CheckpointError(
            f"no checkpoint in {store.folder} is whole: {'; '.join(notes)}. Bring the files back "
            "from a backup, restore a savepoint into a new folder, or start from nothing in a new "
            "folder"
        )
    if resumed := await store.last_resumed():
        raise CheckpointError(
            f"no checkpoint is left in {store.folder}, but the job went on from epoch {resumed} "
            "once: starting from nothing would repeat results. Bring the files back from a backup, "
            "or restore a savepoint or start from nothing in a new folder"
        )
    await store.resume_from(0)
    return Recovery()


async def recover_decided(store: DirectoryStore, committed: int | None) -> Recovery:
    """Go on from exactly the epoch that the deciding sink committed last; discard newer ones.

    `committed` None: the sink never committed for this job. `CheckpointError` where that epoch's
    checkpoint is missing or damaged: going on from another would lose or repeat results.
    """
    found = await store.checkpoints()
    if committed is None:
        committed = await _before_first_commit(store, found)
    if committed == 0:
        await store.discard_newer(0)
        await store.resume_from(0)
        return Recovery()
    problems = []
    for made in found:
        if made.epoch != committed:
            continue
        failpoint("manifest.chosen")
        manifest, problem = await _verified(store, made)
        if manifest is not None:
            await store.discard_newer(committed)
            await store.resume_from(committed)
            return Recovery(manifest, committed + 1)
        problems.append(problem)
    raise CheckpointError(
        f"the sink's last committed epoch is {committed}, but its checkpoint in {store.folder} is "
        f"{'; '.join(problems) or 'missing'}. Going on from another would lose or repeat results: "
        "bring the files back from a backup, or restore a savepoint into a new folder"
    )


async def _before_first_commit(store: DirectoryStore, found: Sequence[Made]) -> int:
    """Return where a job stood whose sink committed nothing: at a savepoint's epoch, or at 0."""
    for made in found:
        manifest, _ = await _verified(store, made, read_only=True)
        if manifest is not None and manifest.savepoint:
            return made.epoch
    # One epoch at a time: the second is never opened before the first is committed.
    if any(made.epoch > 1 for made in found):
        raise CheckpointError(
            f"{store.folder} holds checkpoints up to epoch {max(m.epoch for m in found)}, but the "
            "sink knows of no commit of this job: was it given another target, or was its target "
            "emptied? Give it the old one, or start from nothing in a new folder"
        )
    return 0


async def _verified(
    store: DirectoryStore, made: Made, *, read_only: bool = False
) -> tuple[Manifest | None, str]:
    """Return a manifest, or what is wrong with its checkpoint."""
    try:
        manifest = await store.read(made)
    except (FormatError, UnreadableError):
        raise
    except CheckpointError as error:
        return None, str(error)
    if not read_only:
        problems = await store.problems(manifest)
        if problems:
            return None, "; ".join(problems)
        failpoint("manifest.verified")
    return manifest, ""


def cut_to_groups(parts: Iterable[OperatorSnapshot], groups: range) -> list[StateFile]:
    """Return the state files of an operator's parts that hold some of `groups`, cut to them.

    Each part's files stay in order, oldest first. Between parts the order does not matter: a key
    group belonged to one of them only.
    """
    files = []
    for part in sorted(parts, key=lambda part: part.subtask):
        for file in part.files:
            first, last = max(file.first_group, groups[0]), min(file.last_group, groups[-1])
            if first <= last:
                files.append(replace(file, first_group=first, last_group=last))
    return files


def refuse_unknown(
    manifest: Manifest, operators: Collection[str], allow_dropped_state: Collection[str] = ()
) -> list[str]:
    """Make sure that everything in a checkpoint has an operator to go to.

    Returns the operators whose state is dropped because that was allowed. `ConfigError` names
    all others that the flow does not have.
    """
    keeps_something = {
        part.operator
        for part in manifest.operators
        if part.files or part.splits or part.data is not None or part.committable is not None
    }
    unknown = sorted(keeps_something - set(operators))
    refused = [operator for operator in unknown if operator not in set(allow_dropped_state)]
    if refused:
        names = ", ".join(repr(operator) for operator in refused)
        raise ConfigError(
            f"checkpoint {manifest.epoch} holds state of operators that flow {manifest.flow!r} no "
            f"longer has: {names}. Give the operators their old names back (name=...), or let the "
            f"state go: allow_dropped_state=[{names}]"
        )
    return unknown
