from .answers import LONGEST_ANSWER as LONGEST_ANSWER
from .answers import GeneratedAnswer as GeneratedAnswer
from .answers import generate_answers as generate_answers
from .chat_prompt import chat_prompt as chat_prompt
from .journaled import journaled_answers as journaled_answers
from .sampling import Sampling as Sampling
