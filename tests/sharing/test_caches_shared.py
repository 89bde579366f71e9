"""A CacheDict in a folder that alice and bob share: what bob puts there does no harm to alice."""

import re
import shutil
import stat

import pytest

from people import ALICE, BOB, Commons

START = """
import json, os, pickle, sys
import numpy as np
import xxhash
from shared_models import *
from exca.cachedict import CacheDict
folder = shared() / "cd"
home = os.path.expanduser("~")
cd = CacheDict(folder)

def plant(key, name="bob-1-00000000-info.jsonl", **entry):
    folder.mkdir(exist_ok=True, mode=0o2775)
    (folder / "data").mkdir(exist_ok=True, mode=0o2775)
    line = json.dumps({**entry, "#key": key}, separators=(",", ":"))[:-1].encode()
    with open(folder / name, "ab") as file:
        file.write(b'%b,"#xxh":"%016x"}\\n' % (line, xxhash.xxh3_64_intdigest(line)))

def ask(what):
    try:
        print("gave", what())
    except KeyError as e:
        print("missing", e)
    except Exception as e:
        print(type(e).__name__, e)
"""


def words(text: str) -> list[str]:
    return [line.partition(" ")[0] for line in text.splitlines()]


def prepare(commons: Commons) -> dict[str, bytes | None]:
    """Things in alice's home that bob would like to have read, renamed, removed or appended to."""
    home = commons.home(ALICE)
    (home / "project").mkdir()
    for name in (".bashrc", "secret", "project/thesis"):
        (home / name).write_text(f"content of {name}")
    for path in (home / ".bashrc", home / "secret", home / "project", home / "project/thesis"):
        ALICE.owns(path)
    return commons.content(ALICE)


def test_entries_are_shared(commons: Commons) -> None:
    """With umask 002, each reads, replaces and deletes what the other wrote, but for pickles."""
    commons.run(BOB, START + "with cd.write(): cd.update = [cd.__setitem__(k, v) for k, v in "
                "{'a': 1, 'b': np.arange(3.0), 'c': {'d': np.ones(2)}, 'e': Plain(3)}.items()]")  # fmt: skip
    code = """
print(cd["a"], cd["b"].sum(), cd["c"]["d"].sum())
ask(lambda: cd["e"])
with cd.write(): cd["b"] = np.arange(4.0)
del cd["a"]
print(CacheDict(folder)["b"].sum(), "a" in CacheDict(folder), len(CacheDict(folder)))
"""
    told = commons.run(ALICE, START + code).splitlines()
    assert told[0] == "1 3.0 2.0"
    assert told[1].startswith("UntrustedFileError Not unpickling ")
    assert told[2] == "6.0 False 3"
    assert commons.run(BOB, START + "print(cd['b'].sum(), cd['e'].x, 'a' in cd)") == "6.0 3 False\n"


def test_pickles_and_errors_are_of_no_group(commons: Commons) -> None:
    commons.run(ALICE, START + "with cd.write(): cd['e'] = Plain(3)", 0o000)
    rights = {
        p.suffix or p.name: stat.S_IMODE(p.stat().st_mode) for p in commons.shared.joinpath("cd").rglob("*")
    }
    assert rights == {"data": 0o2775, ".pkl": 0o644, ".jsonl": 0o664}


@pytest.mark.parametrize("plant", ["link", "data", "index"])
def test_no_link_is_followed(commons: Commons, plant: str) -> None:
    """Neither the folder, nor its data, nor an index that became a link gives out what alice alone may read."""
    code = "cd = CacheDict(home + '/cd')\nwith cd.write(): cd['secret'] = np.arange(5.0)"
    commons.run(ALICE, START + code)
    commons.run(BOB, START + "with cd.write(): cd['secret'] = np.zeros(5)")
    inside = commons.home(ALICE) / "cd"
    match plant:
        case "link":
            old, new = commons.shared / "cd", inside
        case "data":
            old, new = commons.shared / "cd" / "data", inside / "data"
        case _:
            [old], [new] = commons.shared.glob("cd/*-info.jsonl"), inside.glob("*-info.jsonl")
    before = commons.content(ALICE)
    commons.run(
        BOB, START + f"os.rename({str(old)!r}, {str(old) + '-'!r}); os.symlink({str(new)!r}, {str(old)!r})"
    )
    code = """
from exca import _files
_files.name_root(str(shared()))  # as an infra does with its folder
ask(lambda: cd["secret"].sum())
ask(lambda: list(cd.items()))
def put():
    with cd.write(): cd["new"] = np.ones(1000)
ask(put)
ask(lambda: cd.clear())
"""
    told = commons.run(
        ALICE,
        START.replace("cd = CacheDict(folder)", "") + code.replace("ask(", "cd = CacheDict(folder)\nask(", 1),
    )
    assert "10.0" not in told, told
    assert commons.content(ALICE) == before


NAMES = (
    *("../../alice/secret", "data/../../../alice/secret", "/etc/passwd", "job.json"),
    *("data/link", "data/folder/secret", ""),
)


@pytest.mark.parametrize("how", ["Pickle", "NumpyArray", "PandasDataFrame", "MemmapArray", "files"])
def test_a_planted_line_harms_no_file(commons: Commons, how: str) -> None:
    """Lines name files elsewhere: none is read, renamed, appended to or removed, whatever alice does."""
    before = prepare(commons)
    home = str(commons.home(ALICE))
    code = f"""
for number, name in enumerate({NAMES!r}):
    entry = {{"filename": name, "#type": {how!r}}}
    if {how!r} == "files":
        entry = {{"content": 1, "#type": "Json", "#files": {{name: [3, "0" * 16]}}}}
    elif {how!r} == "MemmapArray":
        entry |= {{"offset": 0, "shape": [4], "dtype": "uint8"}}
    plant(str(number), **entry)
os.symlink({home + "/secret"!r}, folder / "data" / "link")
os.symlink({home!r}, folder / "data" / "folder")
for index in list(folder.glob("*.jsonl")):
    os.symlink({home + "/.bashrc"!r}, str(index) + ".damaged")
"""
    commons.run(BOB, START + code)
    code = f"""
import exca
for key in map(str, range({len(NAMES)})):
    ask(lambda: cd[key])
    ask(lambda: cd[key])
ask(lambda: list(cd.items()))
exca.verify(folder)
exca.repair(folder, orphans=True)
for key in map(str, range({len(NAMES)})):
    ask(lambda: cd.__delitem__(key))
def put():
    with cd.write():
        for key in map(str, range({len(NAMES)})): cd[key] = 3.5
ask(put)
print(*cd.values())
cd.clear()
"""
    told = commons.run(ALICE, START + code).splitlines()
    assert told[-1] == " ".join(["3.5"] * len(NAMES))
    assert not re.search("content of|root:", "".join(told))
    assert commons.content(ALICE) == before


def test_deleting_another_key_keeps_ones_own_data(commons: Commons) -> None:
    """A line of bob's names the file of an entry of alice's, in a folder whose data only she may write to."""
    commons.run(ALICE, START + "with cd.write(): cd['mine'] = Plain(3)\nos.chmod(folder, 0o2775)", 0o022)
    code = """
[name] = os.listdir(folder / "data")
plant("theirs", filename=f"data/{name}", **{"#type": "Pickle"})
"""
    commons.run(BOB, START + code.replace("plant(", "plant("))
    assert commons.run(ALICE, START + "ask(lambda: cd.__delitem__('theirs'))\nprint(cd['mine'].x)").endswith(
        "3\n"
    )


def test_a_class_is_not_imported_on_the_word_of_another(commons: Commons) -> None:
    """A planted entry names a module that does something when imported; one that is imported already is no harm."""
    (commons.home(ALICE) / "evil_module.py").write_text(
        "import dataclasses, os\nopen(os.path.expanduser('~/.bashrc'), 'a').write('evil')\n"
        "@dataclasses.dataclass\nclass Point:\n    x: int = 1\n"
    )
    before = commons.content(ALICE)
    store = """
sys.path.insert(0, home)
import dataclasses, types
module = types.ModuleType("evil_module")
exec("import dataclasses\\n@dataclasses.dataclass\\nclass Point:\\n    x: int = 1\\n", module.__dict__)
module.Point.__module__ = "evil_module"
sys.modules["evil_module"] = module
with cd.write(): cd["p"] = module.Point(7)
"""
    commons.run(BOB, START + store)
    ask = "sys.path.insert(0, home)\nask(lambda: cd['p'].x)\nask(lambda: [v.x for v in cd.values()])"
    told = commons.run(ALICE, START + ask)
    assert words(told) == ["UntrustedFileError"] * 2
    assert "Not importing evil_module" in told
    assert commons.content(ALICE) == before
    assert (
        words(commons.run(ALICE, START + ask, EXCA_TRUSTED_USERS=str(BOB.uid), EXCA_TRUSTED_GROUPS="64330"))
        == ["gave"] * 2
    )


def test_an_index_that_everybody_may_write_is_passed_over(commons: Commons) -> None:
    commons.run(
        BOB,
        START
        + "plant('a', content=1, **{'#type': 'Json'}); os.chmod(folder / 'bob-1-00000000-info.jsonl', 0o666)",
    )
    assert commons.run(ALICE, START + "ask(lambda: cd['a'])") == "missing 'a'\n"


@pytest.mark.parametrize("kind", ["nifti", "fif", "frame", "npy"])
def test_readers_of_others_are_given_what_was_opened(commons: Commons, kind: str) -> None:
    """Files that other libraries read by their path are read from the open file where bob could exchange it."""
    make = {
        "nifti": "import nibabel; value = nibabel.Nifti1Image(np.full((2, 2, 2), 5.0), np.eye(4))",
        "fif": "import mne; value = mne.io.RawArray(np.full((1, 100), 5.0), mne.create_info(1, 99.0), verbose=40)",
        "frame": "import pandas; value = pandas.DataFrame({'a': [5.0]})",
        "npy": "value = np.full(3, 5.0); cd = CacheDict(folder, cache_type='NumpyArray')",
    }[kind]
    read = {
        "nifti": "cd['k'].get_fdata().max()",
        "fif": "cd['k'].get_data().max().round(6)",
        "frame": "cd['k']['a'].max()",
        "npy": "cd['k'].max()",
    }[kind]
    commons.run(BOB, START + make + "\nwith cd.write(): cd['k'] = value", HOME=str(commons.home(BOB)))
    assert commons.run(ALICE, START + f"print({read})") == "5.0\n"
    home = commons.home(ALICE)
    for path in (commons.shared / "cd" / "data").iterdir():  # as if she had computed the same at home
        shutil.copy(path, home / path.name)
        ALICE.owns(home / path.name)
    before = commons.content(ALICE)
    code = f"""
for name in os.listdir(folder / "data"):
    os.rename(folder / "data" / name, folder / "data" / ("-" + name))
    os.symlink({str(home)!r} + "/" + name, folder / "data" / name)
"""
    commons.run(BOB, START + code)
    assert words(commons.run(ALICE, START + f"ask(lambda: {read})")) == ["UntrustedFileError"]
    after = commons.content(ALICE)
    assert {name: after[name] for name in before} == before


def test_an_index_file_exchanged_after_it_was_listed(commons: Commons) -> None:
    """Alice has listed her own file, and bob's is in its place when it is opened: it is not taken for hers."""
    code = """
os.umask(0o022)
with cd.write(): cd["a"] = 1
folder.chmod(0o2775)
index = CacheDict(folder)._index
index.refresh()
file = index._files[0]
file.drop_handle()
print(file.trusted, file.path, flush=True)
input()
print(file.read(0, 99), file.trusted)
"""
    alice = ALICE.talk_to(commons.home(ALICE), START + code, SHARED=str(commons.shared))
    assert alice.stdout is not None
    listed, path = alice.stdout.readline().split()
    assert listed == "True"
    commons.run(
        BOB, f"import os; os.rename({path!r}, {path!r} + '.gone'); open({path!r}, 'w').write('planted')"
    )
    out, err = alice.communicate("\n", timeout=60)
    assert out == "b'' True\n", err
    assert "another user's file in the place of this one" in err
