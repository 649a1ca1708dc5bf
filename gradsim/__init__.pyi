from .notebook import compare_studies as compare_studies
from .notebook import open_study as open_study
from .notebook import studies as studies

__version__: str
