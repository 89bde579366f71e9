"""Handlers of stored values, one file per family. Packages of values are imported when a handler first needs them."""

import typing as tp

from ..._earlier import earlier_names
from . import python_types as python_types  # registers itself
from .arrays import ContiguousMemmapArray, MemmapArray, NumpyArray
from .neuro import MneRawBrainVision, MneRawFif, NibabelNifti
from .pickled import Pickle
from .structured import Auto, AutoPickle, Json
from .tables import PandasDataFrame, ParquetPandasDataFrame
from .tensors import TorchTensor

__all__ = [
    "Auto",
    "AutoPickle",
    "ContiguousMemmapArray",
    "Json",
    "MemmapArray",
    "MneRawBrainVision",
    "MneRawFif",
    "NibabelNifti",
    "NumpyArray",
    "PandasDataFrame",
    "ParquetPandasDataFrame",
    "Pickle",
    "TorchTensor",
]

if not tp.TYPE_CHECKING:
    __getattr__ = earlier_names(__name__)
