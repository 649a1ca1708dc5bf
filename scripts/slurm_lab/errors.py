"""Errors that the user can fix."""


class LabError(Exception):
    """Error that is printed without a traceback."""


class NotPossibleHereError(LabError):
    """Error raised if this machine lacks a permission or a program."""
