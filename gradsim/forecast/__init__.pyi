from .costs import Forecaster as Forecaster
from .costs import Machine as Machine
from .inputs import ForecastInputs as ForecastInputs
from .inputs import partition_inputs as partition_inputs
from .job import Question as Question
from .job import predicted_seconds as predicted_seconds
from .sources import Sources as Sources
