from .client import OPENAI as OPENAI
from .client import Estimate as Estimate
from .client import Paraphraser as Paraphraser
from .client import host_of as host_of
from .costs import Cost as Cost
from .failures import ParaphraseError as ParaphraseError
