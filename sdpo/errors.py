"""Errors that are the user's to mend."""


class UserError(Exception):
    """Something a user can put right.  The message names cause and remedy; it is shown without a traceback."""


class PartFailed(UserError):
    """A part of a run is dead, stopped, or does not answer.

    part: its name; cause: what happened to it; phase: what it was doing.  A supervised run replaces the part.
    """

    def __init__(self, part: str, cause: str, phase: str = "") -> None:
        super().__init__(part, cause, phase)
        self.part, self.cause, self.phase = part, cause, phase

    def __str__(self) -> str:
        return f"{self.part}: {self.cause}" + (f" (in {self.phase})" if self.phase else "")
