"""Brain images and recordings, in the formats of their fields. nibabel, mne and pybv are needed only when used."""

import functools
import os
import tempfile
import typing as tp
import weakref

from ... import _files
from ...errors import HandlerError
from .. import registry
from ..dumpcontext import DumpContext
from ..textindex import Info
from .base import KeyFileHandler, imported


def _load(ctx: DumpContext, filename: str, read: tp.Callable[[str], tp.Any]) -> tp.Any:
    """Read a file with a library that wants its path, and may come back to it when samples are asked for."""
    path = ctx.path(filename)
    os.close(ctx.open(filename))
    if _files.is_ours_alone(os.path.dirname(path)):
        return read(path)
    # others could exchange the files before the library opens them: it is given names of the files that are open now
    folder = _Borrowed(ctx, filename)
    try:
        value = read(f"{folder.place}/{os.path.basename(path)}")
        weakref.finalize(value, folder.close)
    except BaseException:
        folder.close()
        raise
    return value


class _Borrowed:
    """A folder of this process, in which the files of one recording, whose names begin alike, have their names."""

    def __init__(self, ctx: DumpContext, filename: str) -> None:
        self.fds: list[int] = []
        self.place = tempfile.mkdtemp(prefix="exca-")
        folder, name = os.path.split(filename)
        stem = name.partition(".")[0]
        try:
            for other in sorted(os.listdir(ctx.path(folder) if "/" in folder else f"{ctx.root}/{folder}")):
                if other.startswith(stem):
                    self.fds.append(ctx.open(f"{folder}/{other}"))
                    os.symlink(f"/proc/{os.getpid()}/fd/{self.fds[-1]}", f"{self.place}/{other}")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove the folder, and close the files."""
        import shutil

        shutil.rmtree(self.place, ignore_errors=True)
        while self.fds:
            os.close(self.fds.pop())


_nibabel = functools.partial(imported, "nibabel", "Storing or loading a NIfTI image")
_mne = functools.partial(imported, "mne", "Storing or loading an MNE recording")


class NibabelNifti(KeyFileHandler):
    """One compressed NIfTI file per image; its voxels are read when they are asked for."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        nibabel = _nibabel()
        if not isinstance(value, nibabel.Nifti1Image | nibabel.Nifti2Image):
            raise HandlerError(f"Expected a NIfTI image, got {type(value).__name__}")
        name = ctx.key_path(".nii.gz")
        nibabel.save(value, ctx.path(name))
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, filename: str) -> tp.Any:
        return _load(ctx, filename, _nibabel().load)


def _require_recording(value: tp.Any) -> None:
    if not isinstance(value, _mne().io.BaseRaw):
        raise HandlerError(f"Expected an MNE recording, got {type(value).__name__}")


class MneRawFif(KeyFileHandler):
    """One FIF file per recording (more when it is over 2 GB); samples are read when they are asked for."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        _require_recording(value)
        name = ctx.key_path("-raw.fif")
        paths = value.save(ctx.path(name), overwrite=True, verbose="ERROR")
        ctx.files.fresh += [f"{ctx.DATA_DIR}/{os.path.basename(path)}" for path in (paths or ())[1:]]
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, filename: str) -> tp.Any:
        read = _mne().io.read_raw_fif
        return _load(ctx, filename, lambda path: read(path, verbose="ERROR", allow_maxshield=False))


class MneRawBrainVision(KeyFileHandler):
    """A folder with the three BrainVision files of a recording; samples are read when they are asked for."""

    @classmethod
    def __dump_info__(cls, ctx: DumpContext, value: tp.Any) -> Info:
        _require_recording(value)
        imported("pybv", "Storing a BrainVision recording")  # mne needs it to write this format
        folder = ctx.key_path("-raw")
        _files.make_folders(ctx.path(folder))
        name = f"{folder}/{os.path.basename(folder)}.vhdr"
        _mne().export.export_raw(ctx.path(name), value, fmt="brainvision", verbose="ERROR")
        ctx.files.fresh += [f"{folder}/{part}" for part in sorted(os.listdir(ctx.path(folder)))]
        return {"filename": name}

    @classmethod
    def __load_from_info__(cls, ctx: DumpContext, filename: str) -> tp.Any:
        read = _mne().io.read_raw_brainvision
        return _load(ctx, filename, lambda path: read(path, verbose="ERROR"))

    @classmethod
    def __delete_info__(cls, ctx: DumpContext, **info: tp.Any) -> None:
        folder, name = os.path.split(ctx.path(info["filename"]))
        if folder.endswith("-raw") and name == f"{os.path.basename(folder)}.vhdr":  # as it is made, above
            _files.remove_tree(folder)


registry.add_builtin(NibabelNifti, by_name=("nibabel.nifti1.Nifti1Image", "nibabel.nifti2.Nifti2Image"))
registry.add_builtin(MneRawFif, by_name=("mne.io.base.BaseRaw",))
registry.add_builtin(MneRawBrainVision, by_name=("mne.io.brainvision.brainvision.RawBrainVision",))
