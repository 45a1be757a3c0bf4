"""One family of errors: each is one line that says where, what came, what was wanted."""


class VcppoError(Exception):
    """Base of every error a user can cause or cure. The command line prints it in one line and exits with 2."""


class ConfigError(VcppoError, ValueError):
    """A setting is unknown, out of range, or meaningless beside another."""


class DataError(VcppoError, ValueError):
    """A file of prompts, results or records does not hold what its reader needs."""


class CheckpointError(VcppoError, ValueError):
    """A checkpoint is missing, incomplete, or of another shape."""


class DiskError(VcppoError, OSError):
    """A file cannot be written: no room, or not allowed. Nothing is half written; the same command goes on later."""


class NotPreparedError(VcppoError, RuntimeError):
    """A model was given to a pass before it was prepared for passes."""


class ShapeError(VcppoError, ValueError):
    """A tensor's shape does not fit the batch it belongs to."""


class TrainingError(VcppoError, ArithmeticError):
    """Training left the realm of finite numbers; the last good checkpoint is kept."""


class TrackingError(VcppoError, ConnectionError):
    """The tracking server refuses or cannot be reached; what it should have heard is kept on disk."""


class StudyError(VcppoError, RuntimeError):
    """A study file, its storage, or its cells are not in a state that the command can go on from."""


class EngineError(VcppoError, RuntimeError):
    """A generator cannot be started, cannot do what was asked of it, or has died."""


def first_line(error: BaseException) -> str:
    """First line of an error's message, of 200 characters at most; its class where it has none."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
