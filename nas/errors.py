"""Mistakes a user can mend: one line that says what was asked, what was found, what to do."""


class UserError(ValueError):
    """Raised for bad input; the command line prints it as one line and exits with code 2."""


class DeviceLostError(UserError):
    """Raised where a GPU failed: in this process nothing runs on it any more."""


def brief(error: BaseException) -> str:
    """Put what an error says on one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]
