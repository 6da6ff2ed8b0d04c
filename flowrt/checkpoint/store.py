"""Checkpoints in a folder.

- `manifest-<epoch>-<generation>.json`: a checkpoint: positions, committables, names of state files.
- `state/<operator>-<subtask>-<kind><epoch>-<generation>.state`: keyed state: what an epoch changed
  (kind d), files merged into one (m), or brought in from a savepoint (i).
- `lease.json`, `lease-<generation>.lock`: who owns the folder (see `lease`).
- `fence-<epoch>-<generation>`, empty: this generation resumed from this epoch (see `fences`).
- `*.tmp`: being written, or left over by an instance that died.

A checkpoint is a manifest and all state files that it names; checkpoints share state files. A
savepoint is a folder with one checkpoint that shares nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence

from flowrt.checkpoint.disk import TEMPORARY, delete_quietly, disk_error, write_durably
from flowrt.checkpoint.fences import counts, needless
from flowrt.checkpoint.format import batches, in_groups, read_blocks, read_index, verify_state_file
from flowrt.checkpoint.lease import Lease
from flowrt.checkpoint.manifest import EncodedSplits, Manifest, decode_manifest, encode_manifest
from flowrt.checkpoint.names import (
    STATE_FOLDER,
    Made,
    fence_name,
    manifest_name,
    parse_fence,
    parse_manifest,
    parse_state,
)
from flowrt.contract.errors import CheckpointError, ConfigError, LeaseError
from flowrt.contract.failpoints import failpoint
from flowrt.contract.folders import make_folder_durably
from flowrt.contract.logs import flow_log
from flowrt.contract.snapshot import Block, StateFile
from flowrt.contract.world import Files

_log = flow_log("flowrt.checkpoint")


class OtherFlowError(ConfigError):
    """The checkpoints in a folder belong to another flow: the folder is the wrong one."""


class UnreadableError(CheckpointError):
    """A checkpoint could not be read just now: whether it is whole, nobody knows."""

    def __init__(self, path: str, manifest: str, error: OSError) -> None:
        super().__init__(
            f"{path} cannot be read: {error}. The checkpoint may be whole, so none before it is "
            "taken in its place: see whether the disk is there and healthy, and start again. To "
            f"go on from the one before all the same, move {manifest} away"
        )


class DirectoryStore:
    """The checkpoints of one flow in one folder; without a lease it can only be read."""

    def __init__(
        self, files: Files, folder: str, flow: str, lease: Lease | None = None, keep: int = 2
    ) -> None:
        self.files = files
        self.folder = folder
        self.flow = flow
        self._lease = lease
        self._keep = keep
        self._needed: dict[Made, frozenset[str]] = {}
        self._encoded_splits = EncodedSplits()
        self._told: set[str] = set()
        self._held: Counter[Made] = Counter()
        self._doomed: set[Made] = set()

    @property
    def lease(self) -> Lease:
        """The lease that allows writing; `LeaseError` where the store was opened to read."""
        if self._lease is None:
            raise LeaseError(f"the checkpoint folder {self.folder} was opened for reading only")
        return self._lease

    # ------------------------------------------------------------------------------------ reading

    async def checkpoints(self) -> list[Made]:
        """Return the checkpoints that count, the best to recover from first; not verified."""
        try:
            names = await self.files.names(self.folder)
        except OSError as error:
            raise disk_error(error, "list the checkpoints", self.folder) from error
        fences = [fence for fence in map(parse_fence, names) if fence is not None]
        found = (made for made in map(parse_manifest, names) if made is not None)
        return sorted((made for made in found if counts(made, fences)), reverse=True)

    async def last_resumed(self) -> int:
        """Return the newest epoch that any life went on from; 0 where all began from nothing."""
        try:
            names = await self.files.names(self.folder)
        except OSError as error:
            raise disk_error(error, "list the checkpoints", self.folder) from error
        fences = (fence for fence in map(parse_fence, names) if fence is not None)
        return max((fence.epoch for fence in fences), default=0)

    async def read(self, made: Made) -> Manifest:
        """Return a manifest; `CheckpointError` where it is missing or damaged.

        `UnreadableError` where neither can be said, `OtherFlowError` where it is of another flow.
        """
        path = self.manifest_path(made)
        try:
            data = await self.files.read(path)
        except FileNotFoundError as error:
            raise CheckpointError(f"{path} is missing") from error
        except OSError as error:
            raise UnreadableError(path, path, error) from error
        manifest = decode_manifest(data, path)
        if manifest.made != made:
            raise CheckpointError(
                f"{path} is the manifest of epoch {manifest.epoch}, generation "
                f"{manifest.generation}: it was renamed by hand"
            )
        if manifest.flow != self.flow:
            raise OtherFlowError(
                f"the folder {self.folder} holds checkpoints of flow {manifest.flow!r}, not of "
                f"{self.flow!r}: give each flow a folder of its own, or keep the flow's name"
            )
        return manifest

    async def problems(self, manifest: Manifest) -> list[str]:
        """Read all state files of a checkpoint; return what is wrong, [] where it is whole.

        `UnreadableError` where that cannot be said.
        """
        found = []
        for file in manifest.state_files().values():
            path = self.state_path(file.name)
            try:
                problem = await verify_state_file(self.files, path, file)
            except FileNotFoundError:
                problem = f"{path} is missing"
            except OSError as error:
                raise UnreadableError(path, self.manifest_path(manifest.made), error) from error
            if problem is not None:
                found.append(problem)
        return found

    async def load(self, state_files: Iterable[StateFile]) -> AsyncIterator[list[Block]]:
        """Read blocks, file after file in the order given, within each file's key groups.

        Each list has a piece of bounded size. `CheckpointError` where a file is damaged.
        """
        for file in state_files:
            path = self.state_path(file.name)
            try:
                index = await read_index(self.files, path, file)
                for groups in batches([index]):
                    yield await read_blocks(self.files, path, in_groups(index, groups))
            except OSError as error:
                raise disk_error(error, f"read the state file {file.name}", self.folder) from error

    def hold(self, made: Made) -> bool:
        """Keep a checkpoint with all its files until `let_go`; False where it is being deleted.

        This store deletes none that is held. Another instance that took the folder over may.
        """
        if made in self._doomed:
            return False
        self._held[made] += 1
        return True

    def let_go(self, made: Made) -> None:
        """Let a checkpoint that was held be deleted once no recovery can ask for it."""
        self._held -= Counter([made])

    def manifest_path(self, made: Made) -> str:
        """Return where a manifest lies."""
        return f"{self.folder}/{manifest_name(made)}"

    def state_path(self, name: str) -> str:
        """Return where a state file lies."""
        return f"{self.folder}/{STATE_FOLDER}/{name}"

    # ------------------------------------------------------------------------------------ writing

    async def make_state_folder(self) -> None:
        """Make the folder for state files, where it is missing; before any is written.

        Not by whoever takes the lease: a start that is refused leaves a new folder as it was.
        """
        try:
            await make_folder_durably(self.files, f"{self.folder}/{STATE_FOLDER}")
        except OSError as error:
            raise disk_error(error, "make the folder for state", self.folder) from error

    async def resume_from(self, epoch: int) -> None:
        """Note the epoch that this generation continues (0: nothing), before it writes anything.

        Checkpoints of older generations with newer epochs don't count from then on.
        """
        await self.lease.check()
        fence = Made(self.lease.generation, epoch)
        path = f"{self.folder}/{fence_name(fence)}"
        try:
            await self.files.write(path, [])
            await self.files.sync(path)
            await self.files.sync_folder(self.folder)
            present = map(parse_fence, await self.files.names(self.folder))
        except OSError as error:
            raise disk_error(error, "note where the job resumes", self.folder) from error
        for old in needless((made for made in present if made is not None), fence):
            await delete_quietly(self.files, f"{self.folder}/{fence_name(old)}")

    async def write(self, manifest: Manifest) -> None:
        """Complete a checkpoint whose state files are durable; the rename within commits it.

        `LeaseError` where the folder was taken over, `CheckpointError` where it cannot be written.
        """
        data = encode_manifest(manifest, self._encoded_splits)
        await self.lease.check()
        try:
            await write_durably(
                self.files,
                self.manifest_path(manifest.made),
                [data],
                lambda step: failpoint(f"manifest.{step}"),
            )
        except OSError as error:
            what = f"write the manifest of epoch {manifest.epoch}"
            raise disk_error(error, what, self.folder) from error
        self._needed[manifest.made] = frozenset(manifest.state_files())

    async def retain(self, epoch: int) -> None:
        """Delete what no recovery can ask for, now that every commit of `epoch` is acknowledged.

        What stays: the newest checkpoints (as many as the store keeps) and their state files. Where
        a file cannot be deleted, it stays until the next time; where a manifest cannot be read,
        nobody knows what it needs, and all of them stay.
        """
        await self.lease.check()
        try:
            names = await self.files.names(self.folder)
            await self._retain(epoch, [made for made in map(parse_manifest, names) if made])
        except UnreadableError as error:
            if str(error) not in self._told:
                self._told.add(str(error))
                _log.warning("no old checkpoint is deleted meanwhile: %s", error)
        except OSError as error:
            raise disk_error(error, "delete old checkpoints", self.folder) from error

    async def discard_newer(self, epoch: int) -> list[Made]:
        """Delete the checkpoints after `epoch`, which their deciding sink never committed."""
        await self.lease.check()
        doomed = [made for made in await self.checkpoints() if made.epoch > epoch]
        for made in doomed:
            await delete_quietly(self.files, self.manifest_path(made))
        return doomed

    async def _retain(self, epoch: int, manifests: Sequence[Made]) -> None:
        kept = await self._kept(epoch)
        mine = self.lease.generation
        # A newer generation than ours means that our lease is lost: nothing of its files is ours.
        doomed = [made for made in manifests if made not in kept and made.generation <= mine]
        self._doomed.clear()
        for made in doomed:
            # Each time: whoever takes the folder over may be about to choose just this one.
            await self.lease.check()
            if self._held[made] and await self._knows_needs(made):
                kept.append(made)
                continue
            self._doomed.add(made)
            await delete_quietly(self.files, self.manifest_path(made))
            failpoint("checkpoint.deleted")
        if doomed:
            # A manifest that came back after a crash must not miss its files.
            await self.files.sync_folder(self.folder)
        self._needed = {made: self._needed[made] for made in kept}
        needed = frozenset().union(*self._needed.values())
        await self.lease.check()
        await self._delete_state(Made(mine, epoch), needed)
        for name in await self.files.names(self.folder):
            if name.endswith(TEMPORARY):
                await self._delete_left_over(self.folder, name, mine)

    async def _kept(self, epoch: int) -> list[Made]:
        """Return the newest committed checkpoints, and all that are newer still."""
        kept: list[Made] = []
        committed = 0
        for made in await self.checkpoints():
            if committed < self._keep and await self._knows_needs(made):
                kept.append(made)
                committed += made.epoch <= epoch
        return kept

    async def _knows_needs(self, made: Made) -> bool:
        if made not in self._needed:
            try:
                self._needed[made] = frozenset((await self.read(made)).state_files())
            except UnreadableError:
                raise
            except (CheckpointError, OtherFlowError):
                return False  # damaged, or put there by hand: no recovery can ask for it
        return True

    async def _delete_state(self, committed: Made, needed: frozenset[str]) -> None:
        folder = f"{self.folder}/{STATE_FOLDER}"
        for name in await self.files.names(folder):
            made = parse_state(name)
            if made is not None and made <= committed and name not in needed:
                await delete_quietly(self.files, f"{folder}/{name}")
            elif name.endswith(TEMPORARY):
                await self._delete_left_over(folder, name, committed.generation)

    async def _delete_left_over(self, folder: str, name: str, mine: int) -> None:
        whole = name.removesuffix(TEMPORARY)
        made = parse_state(whole) or parse_manifest(whole)
        if made is not None and made.generation < mine:
            await delete_quietly(self.files, f"{folder}/{name}")
