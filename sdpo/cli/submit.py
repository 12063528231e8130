"""`sdpo submit`: `sdpo train` as a job of a Ray cluster, followed from here."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sdpo.cli.job_environment import entrypoint, large_files, runtime_environment
from sdpo.config.discovery import refuse_recipe
from sdpo.config.files import find_recipe
from sdpo.config.run_name import named
from sdpo.config.schema import Recipe
from sdpo.config.terminal import say, shown
from sdpo.errors import UserError
from sdpo.training.interrupt import STOPPED

_PATIENCE_S = 10.0  # for the server to accept a connection
_AGENTS_S = 60.0  # for a cluster that has just been started to have a process that takes jobs
_DEFAULT = "http://HOST:8265, where HOST is the cluster's first machine"


def run(options) -> int:
    asked = [(name, value) for name in ("status", "logs", "stop") if (value := getattr(options, name)) is not None]
    if len(asked) + (options.recipe is not None) != 1:
        raise UserError("Give one of: a recipe to submit, --status JOB, --logs JOB, --stop JOB.")
    if asked and (options.overrides or options.pip or options.env or options.seeds):
        raise UserError(f"--{asked[0][0]} is about a job that was submitted: options of a run have no effect on it.")
    prepared = _prepared(options) if not asked else None  # what is wrong here is said before anybody is asked
    job = _Jobs(options.address)
    if prepared is not None:
        return job.follow(job.submit(*prepared))
    action, name = asked[0]
    if action == "logs":
        return job.follow(name)
    return job.stop(name) if action == "stop" else job.status(name)


def _prepared(options) -> tuple[str, dict[str, Any], str]:
    """Shell command, runtime environment and name of the job."""
    file = find_recipe(options.recipe, options.algorithm)
    recipe = named(file, options.profile or "gpu", options.overrides)
    refuse_recipe(recipe)
    _check_directory(recipe)
    folder = Path.cwd()
    environment = runtime_environment(folder, recipe, options.env, Path(options.pip) if options.pip else None)
    flags = [(f"--{name}", getattr(options, name)) for name in ("algorithm", "profile", "seeds")]
    words = [word for flag, value in flags if value is not None for word in (flag, value)]
    command = entrypoint(options.python, _as_sent(options.recipe, folder), words, options.overrides)
    if large := large_files(folder):
        say(f"Not sent, being larger than 50 MiB each: {', '.join(large[:5])}{' …' if len(large) > 5 else ''}")
    say(f"Variables handed on: {', '.join(environment['env_vars'])}")
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return command, environment, f"{re.sub(r'[^A-Za-z0-9-]+', '-', recipe.name)}-{stamp}"


def _as_sent(recipe: str, folder: Path) -> str:
    """A recipe's name, or the path of its file in what is sent."""
    if not Path(recipe).is_file():
        return recipe
    try:
        return str(Path(recipe).resolve().relative_to(folder))
    except ValueError:
        raise UserError(
            f"{recipe} does not lie in {folder}, which is what the cluster gets. Give the command in the recipe's "
            "folder, with its other files below it."
        ) from None


def _check_directory(recipe: Recipe) -> None:
    if not Path(recipe.run.directory).is_absolute():
        raise UserError(
            f"run.directory={recipe.run.directory} would lie in the job's copy of this folder, which the cluster "
            "deletes. Give an absolute path that every machine of the cluster sees: run.directory=/shared/runs."
        )


class _Jobs:
    """The job server of a cluster.  Raises UserError where there is none, or it refuses."""

    def __init__(self, address: str | None) -> None:
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):  # either would win over the address
            os.environ.pop(name, None)
        parts = urlsplit(address or "")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--address {address or ''}: give the address of the cluster's dashboard: {_DEFAULT}.")
        self.address = f"{parts.scheme}://{parts.netloc}"
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        try:
            socket.create_connection((parts.hostname, port), _PATIENCE_S).close()
        except OSError as error:
            raise UserError(
                f"Nothing answers at {self.address} ({error}). Give the dashboard's address ({_DEFAULT}). It is there "
                "where ray[default] is installed on the first machine, and listens on 127.0.0.1 unless `ray start` had "
                "--dashboard-host; a tunnel leads to it: ssh -L 8265:127.0.0.1:8265 HOST."
            ) from None
        self._client = self._ask(_client, self.address)

    def submit(self, command: str, environment: dict[str, Any], name: str) -> str:
        say(f"Sending {environment['working_dir']} to {self.address}: {command.removeprefix('exec ')}")
        until = time.monotonic() + _AGENTS_S
        while True:
            try:
                job = self._ask(
                    self._client.submit_job, entrypoint=command, runtime_env=environment, submission_id=name
                )
                break
            except UserError as error:
                if "No available agent" not in str(error):
                    raise
                if time.monotonic() > until:
                    raise UserError(
                        f"No process of the cluster at {self.address} takes jobs (Ray's dashboard agent), after "
                        f"{_AGENTS_S:.0f} s. Where another Ray of the machine has its port, start this one with "
                        "--dashboard-agent-listen-port; otherwise logs/dashboard_agent.log of Ray's session says why."
                    ) from None
                time.sleep(1)
        say(f"Job {job}. Ctrl-C stops following it and leaves it running.")
        return job

    def follow(self, job: str) -> int:
        """Print the job's output until it ends; its exit status."""
        try:
            details = asyncio.run(self._followed(job))
        except KeyboardInterrupt:
            say(f"\nThe job goes on. To follow it again: {self._command('logs', job)}; to stop it: "
                f"{self._command('stop', job)}")  # fmt: skip
            return STOPPED
        if details.status == "SUCCEEDED":
            return 0
        if details.status == "STOPPED":
            say(f"Job {job} was stopped.", sys.stderr)
            return STOPPED
        said = " ".join((details.message or "").split())[:600]
        say(f"error: Job {job} failed: {said} Its output is above ({self._command('logs', job)}); the same command "
            "submits it again, and its run goes on from the last checkpoint.", sys.stderr)  # fmt: skip
        return details.driver_exit_code or 1

    def status(self, job: str) -> int:
        details = self._ask(self._client.get_job_info, job)
        say(f"{job}: {details.status}. {details.message or ''}\n{details.entrypoint.removeprefix('exec ')}")
        return 0

    def stop(self, job: str) -> int:
        if not self._ask(self._client.stop_job, job):
            raise UserError(f"Job {job} does not run any more; see {self._command('status', job)}")
        say(f"Job {job} is asked to stop, and saves its last complete step: {self._command('logs', job)}")
        return 0

    async def _followed(self, job: str):
        """The job's details, once it has ended.  A connection that breaks off is made anew."""
        printed = 0
        while True:
            details = self._ask(self._client.get_job_info, job)
            ended, place = details.status.is_terminal(), 0
            try:
                async for text in self._client.tail_job_logs(job):  # from the beginning, each time
                    new = text[max(0, printed - place) :]
                    place += len(text)
                    printed = max(printed, place)
                    sys.stdout.write(shown(new))
                    sys.stdout.flush()
            except Exception as error:  # of aiohttp, or Ray's RuntimeError
                if ended:
                    raise UserError(f"The output of job {job} cannot be read ({error}).") from error
            if ended:
                return details
            await asyncio.sleep(1)

    def _command(self, action: str, job: str) -> str:
        return f"sdpo submit --address {self.address} --{action} {job}"

    def _ask(self, ask, *given, **named):
        from ray.exceptions import AuthenticationError

        try:
            return ask(*given, **named)
        except AuthenticationError as error:
            raise UserError(
                f"{self.address} asks for a token ({' '.join(str(error).split())[:200]}). Set RAY_AUTH_MODE=token here "
                "and copy the cluster's ~/.ray/auth_token, or put it into RAY_AUTH_TOKEN."
            ) from None
        except (RuntimeError, OSError, ValueError) as error:  # requests' errors are OSErrors
            said = " ".join(str(error).split())
            if "does not exist" in said:
                raise UserError(
                    f"{self.address} knows no such job ({said[:300]}). All: ray job list --address {self.address}"
                ) from None
            raise UserError(
                f"The job server at {self.address} refused: {said[:600] or type(error).__name__}. Is this the "
                f"address of a Ray dashboard ({_DEFAULT})?"
            ) from None


def _client(address: str):
    from ray.job_submission import JobSubmissionClient

    return JobSubmissionClient(address)
