"""What goes wrong in ways that the user can do something about."""


class LabError(Exception):
    """What is said instead of a traceback."""


class NotPossibleHereError(LabError):
    """This machine lacks a right or a program."""
