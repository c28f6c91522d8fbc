"""Every exception that Asyncval raises on purpose.

    AsyncvalError                       exit code 1
    ├── UsageError                      2  the user can mend it before anything starts
    │   ├── InvalidOption               a flag or a key of the configuration file
    │   ├── InvalidData                 a query, passage, qrels or run file
    │   ├── DeviceUnavailable           a device that is not there or does not work
    │   ├── DependencyMissing           an optional library that was asked for
    │   └── OutputUnavailable           an output folder that is in use or cannot be written
    ├── NothingToDo                     3  there is nothing to show or to do
    ├── CheckpointError                 recorded with its reason, never ends the daemon
    │   ├── CheckpointIncomplete        not whole yet: looked at again later
    │   ├── CheckpointBlocked           may not be read: looked at again later
    │   ├── CheckpointUnsupported       whole, but not something that we can evaluate
    │   └── CheckpointBroken            whole by its files, but its content cannot be trusted
    └── WorkerStopped                   an evaluation process that ended without being asked to

A message is one or two sentences: what is wrong, with the offending value, where,
and what to do about it.
"""


class AsyncvalError(Exception):
    """The base of all of them; `exit_code` is what the process ends with."""

    exit_code = 1


class UsageError(AsyncvalError):
    """The command line, the configuration or the data cannot be used as given."""

    exit_code = 2


class InvalidOption(UsageError):
    """A flag or a configuration key has a value that cannot be used."""


class InvalidData(UsageError):
    """A query, passage, qrels or run file cannot be used as it is."""


class DataChanged(InvalidData):
    """A data file is not the one any more that it was at the start: nothing can go on."""


class DeviceUnavailable(UsageError):
    """A device was asked for that is not there."""


class DependencyMissing(UsageError):
    """An optional library was asked for that is not installed."""


class OutputUnavailable(UsageError):
    """The output folder is in use by another process or cannot be written."""


class NothingToDo(AsyncvalError):
    """There is nothing to show or to do."""

    exit_code = 3


class CheckpointError(AsyncvalError):
    """One checkpoint cannot be evaluated; the others are not concerned.

    It ends only a command that was given just this one.
    """

    exit_code = 2


class CheckpointIncomplete(CheckpointError):
    """The checkpoint is not whole: it is being written, deleted, or was left half-written."""


class CheckpointBlocked(CheckpointError):
    """The checkpoint's files may not be read by this process's user."""

    @classmethod
    def at(cls, path: object) -> "CheckpointBlocked":
        """Return the error for one file or folder."""
        return cls(f"{str(path)!r}: permission denied. Run asyncval as the trainer's user.")


class CheckpointUnsupported(CheckpointError):
    """The folder is whole, but it is not a checkpoint of a kind that we can evaluate."""


class CheckpointBroken(CheckpointError):
    """The files are whole, but what is in them cannot be trusted to be the trained model."""


class WorkerStopped(AsyncvalError):
    """An evaluation process ended without being asked to."""
