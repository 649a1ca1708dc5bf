from .notebook import open_study as open_study

__version__: str
