from . import open_instruct as open_instruct
from . import samples as samples
from .hub import load_hub as load_hub
from .hub import read_saved as read_saved
