"""Every error that audiossm raises on purpose.

AudioSSMError
├── ConfigError      a config file or field is wrong
├── ShapeError       a tensor has another shape or dtype than the layer takes
├── AudioError       audio that can't be read, written or understood
├── ManifestError    a manifest or one of its lines is wrong
├── ModelError       a model that is missing, damaged or of another version
├── DeviceError      a device that this machine or this build doesn't have
├── HotwordError     hot words that can't be listened for, or their file
├── AlignmentError   a text that can't be laid over its audio
├── PronunciationError  words that can't be pronounced
├── SessionError     a session is used after its end
├── SnapshotError    session bytes that this model can't go on from
├── BusyError        no room for one more stream now
├── ProtocolError    a message that its protocol doesn't have, or not now
├── ServiceError     a server that can't be reached, or that refuses
├── OutputError      a result that can't be written
├── WorkerError      a process that others share work with ended early
└── DependencyError  an optional package that this command needs is not installed
"""

__all__ = [
    "AlignmentError",
    "AudioError",
    "AudioSSMError",
    "BusyError",
    "ConfigError",
    "DependencyError",
    "DeviceError",
    "HotwordError",
    "ManifestError",
    "ModelError",
    "OutputError",
    "PronunciationError",
    "ProtocolError",
    "ServiceError",
    "SessionError",
    "ShapeError",
    "SnapshotError",
    "WorkerError",
]


class AudioSSMError(Exception):
    """Base of all errors raised on purpose; its message is one line for a person."""


class ConfigError(AudioSSMError):
    """A config file or field is wrong."""


class ShapeError(AudioSSMError):
    """A tensor has another shape or dtype than the layer takes."""


class AudioError(AudioSSMError):
    """Audio that can't be read, written or understood."""


class ManifestError(AudioSSMError):
    """A manifest or one of its lines is wrong."""


class ModelError(AudioSSMError):
    """A model that is missing, damaged or of another version."""


class DeviceError(AudioSSMError):
    """A device that this machine or this build of torch doesn't have."""


class HotwordError(AudioSSMError):
    """Hot words that can't be listened for, or a line of their file."""


class AlignmentError(AudioSSMError):
    """A text that can't be laid over its audio."""


class PronunciationError(AudioSSMError):
    """Words that can't be pronounced."""


class SessionError(AudioSSMError):
    """A session is used after its end."""


class SnapshotError(AudioSSMError):
    """Session bytes that this model can't go on from."""


class BusyError(AudioSSMError):
    """No room for one more stream now; ``retry_s`` says when to ask again, in seconds."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__(message)
        self.retry_s = retry_s


class ProtocolError(AudioSSMError):
    """A message that its protocol doesn't have, or not now.

    ``code`` is a word for programs, such as ``bad-message``.
    """

    def __init__(self, message: str, code: str = "bad-message") -> None:
        super().__init__(message)
        self.code = code


class ServiceError(AudioSSMError):
    """A server that can't be reached, or that refuses."""


class OutputError(AudioSSMError):
    """A result that can't be written."""


class WorkerError(AudioSSMError):
    """A process that others share work with ended early: killed, perhaps for want of memory."""


class DependencyError(AudioSSMError):
    """An optional package that this command needs is not installed."""
