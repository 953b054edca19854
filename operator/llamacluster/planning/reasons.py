"""Why a group is in the state it is in: the words that agents and operator share with the user.

A reason is the CamelCase word of a Kubernetes condition. The agents set it, the operator copies it
into the LlamaCluster's conditions and events, so the same word appears everywhere.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """One word for a state of a group. The message beside it holds the details."""

    # The way to Ready, in order.
    Starting = "Starting"
    """The agent is up and has not begun its first step."""
    Downloading = "Downloading"
    """The model file is being fetched."""
    Verifying = "Verifying"
    """The model file's sha256 is being computed."""
    WaitingForWorkers = "WaitingForWorkers"
    """At least one worker of the group does not answer yet."""
    Attaching = "Attaching"
    """Every worker restarts its RPC server for this leader."""
    Loading = "Loading"
    """The engine reads the model and sends the layers to the workers."""
    Probing = "Probing"
    """The engine says it is healthy; a first token is being made through the whole group."""
    Ready = "Ready"
    """A token came through every worker."""
    Stopping = "Stopping"
    """The pod was told to stop."""

    # What is wrong with the model.
    ModelNotFound = "ModelNotFound"
    """There is no file at the model's URI."""
    ModelDownloadFailed = "ModelDownloadFailed"
    """The model's server cannot be reached, refuses, or breaks off."""
    ModelAccessDenied = "ModelAccessDenied"
    """The model's server wants credentials, or other ones."""
    CredentialsMissing = "CredentialsMissing"
    """The Secret for the model's server is not there, or has nothing for it."""
    CredentialsInvalid = "CredentialsInvalid"
    """The Secret for the model's server has something that cannot be sent or trusted."""
    ModelInvalid = "ModelInvalid"
    """The file is not a model that the engine can load."""
    ChecksumMismatch = "ChecksumMismatch"
    """The file is not the one that model.sha256 names."""
    StorageFull = "StorageFull"
    """The model does not fit into the volume for it."""

    ModelChanged = "ModelChanged"
    """The file is not the one that the plan was made for."""

    # What is wrong with the plan.
    DoesNotFit = "DoesNotFit"
    """The model, its context and its working memory are larger than the memory limits."""
    TooManyWorkers = "TooManyWorkers"
    """The model has fewer layers than the group has workers."""

    # What is wrong with the Secrets of the API.
    ApiKeysMissing = "ApiKeysMissing"
    """The Secret of the API's keys is not there, or has no key: nobody is let in."""
    ApiKeysInvalid = "ApiKeysInvalid"
    """The Secret of the API's keys has something that is no key: nobody is let in."""
    TlsMissing = "TlsMissing"
    """The Secret of the API's certificate is not there, or not whole."""
    TlsInvalid = "TlsInvalid"
    """The Secret of the API's certificate cannot be used."""
    TlsExpiring = "TlsExpiring"
    """The API's certificate expires soon, and nobody has renewed it."""
    TlsExpired = "TlsExpired"
    """The API's certificate has expired: clients that look at it turn away."""

    # What is wrong with the group.
    WorkerLost = "WorkerLost"
    """A worker that was attached died, restarted or stopped answering."""
    WorkerLeaving = "WorkerLeaving"
    """The pod of an attached worker was told to stop; running requests are finished."""
    EngineMismatch = "EngineMismatch"
    """Leader and workers do not run the same build of the engine."""
    EngineBadFlag = "EngineBadFlag"
    """The engine does not know, or does not accept, one of its arguments."""
    EngineHung = "EngineHung"
    """The engine has work and gets nowhere with it."""
    EngineFailed = "EngineFailed"
    """The engine ended, or does not answer, for a reason of its own."""


class GroupError(Exception):
    """Something that keeps a group from serving.

    The message is for the user: what is wrong, with the value, and what to do about it.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
