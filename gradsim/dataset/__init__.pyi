from . import open_instruct as open_instruct
from . import samples as samples
