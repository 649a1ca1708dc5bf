from .capture.check import FallbackWarning as FallbackWarning
from .compare import compare as compare
from .compare import compare_tiles as compare_tiles
from .projection import Projector as Projector
from .results import Comparison as Comparison
from .results import ProjectedDots as ProjectedDots
from .results import Tile as Tile
from .run import ComparisonTiles as ComparisonTiles
