"""Identity: from a configuration to its uid, and all that keeps the two true to each other."""

from .classnames import NotedNames as NotedNames
from .discriminated import DiscriminatedModel as DiscriminatedModel
from .export import check_secrets as check_secrets
from .export import check_strict as check_strict
from .export import class_names as class_names
from .export import export as export
from .export import export_readable as export_readable
from .freezing import freeze as freeze
from .freezing import holds_containers as holds_containers
from .freezing import is_frozen as is_frozen
from .inputs import PATCHABLE as PATCHABLE
from .inputs import as_input as as_input
from .inputs import as_patched as as_patched
from .uid import UidMaker as UidMaker
from .uid import uid_text as uid_text
