"""Uploads an exported folder to the Hugging Face Hub.

huggingface_hub reads the token (``hf auth login`` or HF_TOKEN); this module neither reads nor shows it.
"""

from __future__ import annotations

from pathlib import Path

from autolambda.errors import AutolambdaError, ConfigError, one_line


def check_repository(repository: str) -> None:
    """Raises ``ConfigError`` for an invalid repository name."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not marked so

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"--push-to-hub: NAME or OWNER/NAME, seen {repository!r} ({one_line(error)})") from error


def push(folder: Path, repository: str) -> str:
    """Uploads a complete folder as a model and returns its address. Creates a missing repository as private.

    Raises ``AutolambdaError`` if the hub refuses. The folder stays, and a second upload skips the uploaded files.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=address.repo_id, folder_path=folder, commit_message="Upload a merge by autolambda")
    except Exception as error:  # the client raises the errors of several libraries, with no common base
        raise AutolambdaError(
            f"'{folder}' is complete, but the hub did not take it as '{repository}' ({one_line(error)}); check the "
            f"login and the network, then: hf upload {repository} {folder}"
        ) from error
    return str(address)
