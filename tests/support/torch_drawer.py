"""A configuration of a module that imports torch."""

import torch

from forked_models import Drawer


class TorchDrawer(Drawer):
    """Draws from torch's generator, too."""

    @property
    def generator(self) -> torch.Generator:
        """The one it draws from."""
        return torch.default_generator
