"""`sdpo export`: a run's policy as a Hugging Face folder with a model card, here and on the hub."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from sdpo.config.terminal import say
from sdpo.errors import UserError
from sdpo.report.card import write_card
from sdpo.report.runs import load_run
from sdpo.tracking import Console
from sdpo.training.adapter_base import merge
from sdpo.training.checkpoints import find_policy, is_adapter, step_of


def run(options) -> int:
    policy, out = find_policy(options.run), Path(options.out)
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise UserError(f"{out} exists and is not empty; give a new folder.")
    if options.push_to_hub:
        _check_push(options.push_to_hub)
    elif options.private:
        raise UserError("--private has no effect without --push-to-hub; leave it out.")
    if is_adapter(policy) and not options.adapter:
        merge(policy, out)
        say(f"Wrote {policy}, merged with its base, to {out}")
    elif options.adapter and not is_adapter(policy):
        raise UserError(f"--adapter: {policy} is a whole model. Leave the option out.")
    else:
        shutil.copytree(policy, out, dirs_exist_ok=True)
        say(f"Copied {policy} to {out}")
    folder = policy.parents[2] if len(policy.parents) > 2 else policy  # <run>/checkpoints/step-000010/policy
    if policy.name == "policy" and (folder / "run.json").is_file():
        write_card(load_run(folder), step_of(policy.parent), out)
        say(f"Wrote {out}/README.md, the model card")
    else:
        say("No model card was written: it tells of a run, and this policy lies in none.")
    if options.push_to_hub:
        _push(out, options.push_to_hub, options.private)
    return 0


def _check_push(repo: str) -> None:
    """Raises UserError for what would fail after everything else was done."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UserError(f"--push-to-hub {repo}: {error}") from None
    if huggingface_hub.is_offline_mode():
        raise UserError("--push-to-hub needs the hub, but HF_HUB_OFFLINE is set. Unset it, or push from elsewhere.")
    if huggingface_hub.get_token() is None:
        raise UserError(
            "--push-to-hub needs a token that may write: `hf auth login`, or HF_TOKEN=… in the environment "
            "(https://huggingface.co/settings/tokens). Without the option the folder is written here alone."
        )


def _push(out: Path, repo: str, private: bool) -> None:
    api = huggingface_hub.HfApi()
    try:
        with Console("export", 0) as console, console.phase(f"uploading to {repo}", announce=True):
            where = api.create_repo(repo, private=private or None, exist_ok=True)
            api.upload_folder(repo_id=where.repo_id, folder_path=out, commit_message="Policy and model card by sdpo")
    except Exception as error:  # the hub, its HTTP library, the network and the disk each have error families
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{out} is written, but could not be pushed to {repo} ({first}). Mend that, then: hf upload {repo} {out} ."
        ) from error
    say(f"Pushed to {where}")
