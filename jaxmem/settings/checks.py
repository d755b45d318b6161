"""Checks of settings where they are made."""

from jaxmem.types import JaxmemError


def demand(name: str, *conditions: tuple[bool, str]) -> None:
    """Raise with the text of the first condition that does not hold."""
    for holds, text in conditions:
        if not holds:
            raise JaxmemError(f"{name}.{text}")


def positive(name: str, settings: object, *names: str) -> None:
    """Raise if a number is not positive; None is not looked at."""
    for key in names:
        value = getattr(settings, key)
        demand(name, (value is None or value > 0, f"{key} must be positive, got {value}"))


def not_negative(name: str, settings: object, *names: str) -> None:
    """Raise if a number is negative."""
    for key in names:
        value = getattr(settings, key)
        demand(name, (value >= 0, f"{key} must not be negative, got {value}"))


def shares(name: str, settings: object, *names: str) -> None:
    """Raise if a number does not lie between 0 and 1; None is not looked at."""
    for key in names:
        value = getattr(settings, key)
        demand(name, (value is None or 0 <= value <= 1, f"{key} must lie between 0 and 1, got {value}"))
