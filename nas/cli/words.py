"""How the commands put things in words: quantities, what a person wrote, where a study is."""


def duration(seconds: float) -> str:
    """Put a time in words, two units at most."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours_of_day = divmod(hours, 24)
    if days:
        return f"{days}d{hours_of_day:02}h"
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{rest:02}s" if minutes else f"{rest}s"


def percent(fraction: float | None) -> str:
    """Show a fraction to a person; "-" where there is none."""
    return "-" if fraction is None else f"{fraction:.2%}"


def one_line(text: str) -> str:
    """Put what a person wrote on one line, without what would steer a terminal."""
    return "".join(each for each in " ".join(text.split()) if each.isprintable())


def schedule(recipe: str | None, epochs: str, seed: int | None) -> str:
    """Say how a network was trained, as far as it is known: "strong, 200 epochs, seed 0"."""
    from nas.history import in_epochs

    told = (recipe or "", in_epochs(epochs), "" if seed is None else f"seed {seed}")
    return ", ".join(one_line(text) for text in told if text)


def ending(result: str) -> str:
    """Say how a try without a score ended; whose process is gone looks as if it ran."""
    return "running, or interrupted" if result == "running" else result.replace("_", " ")


def study_argument(study: str, storage: str | None) -> str:
    """Say how a command that takes a study as its argument finds it; a password is not repeated."""
    import shlex

    from nas.storage import shown_url

    named = f" {shlex.quote(study)}"
    return named if storage is None else f"{named} --storage {shlex.quote(shown_url(storage))}"


def study_options(study: str, storage: str | None) -> str:
    """Say it for a command that takes it as `--study`."""
    return f" --study{study_argument(study, storage)}"
