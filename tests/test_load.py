"""A user's model and its inputs: what is loaded, and what is said where that fails."""

import subprocess
import sys
import warnings
from functools import partial
from textwrap import dedent

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from dscalc import DscalcError
from dscalc.pytorch.inputs import (
    Inputs,
    check_inputs,
    input_hint,
    inputs_from,
    inputs_in_words,
    materialised,
    read_inputs,
)
from dscalc.pytorch.load import load_model
from dscalc.pytorch.user_errors import user_line
from dscalc.show import command_line

NETS = """
import sys
import warnings
from types import SimpleNamespace

import torch
from torch import nn

print("imported with", sys.argv)
table = torch.zeros(3)


class Needy(nn.Module):
    def __init__(self, channels, *, classes: int, act=nn.ReLU):
        super().__init__()


class OnCuda(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(3, 4).cuda()


def net(width=16, kernel_size=3):
    print("called with", sys.argv)
    return nn.Sequential(nn.Conv2d(3, width, kernel_size))


def by_value():
    print("tried")
    return nn.Linear(int(torch.ones(3).sum().item()), 2)


def with_weights():
    model = nn.Linear(3, 2)
    model.load_state_dict({name: torch.zeros(p.shape, device="cpu")
                           for name, p in model.named_parameters()})
    return model


def without_weights():
    nn.Linear(3, 2).load_state_dict({})


def warned_again():
    for _ in range(3):
        warnings.simplefilter("ignore", BytesWarning)  # Python then forgets what was shown
        warnings.warn("old", stacklevel=1)
    return nn.Identity()


def warned():
    warnings.warn("old", stacklevel=2)
    return nn.Identity()


def needs(architecture=None):
    assert architecture is not None


def nested():
    return needs()


def fails():
    raise ValueError("no weights\\nat all")


def unfinished():
    raise NotImplementedError


def leaves():
    sys.exit(3)


def in_torch():
    return torch.zeros(2) @ torch.zeros(3)


def words():
    return "a model"


instance = net()
number = 7
family = SimpleNamespace(small=SimpleNamespace(net=net))
"""


def at(source):
    """Where a line of nets.py stands."""
    [number] = [n for n, line in enumerate(NETS.splitlines(), 1) if line.strip() == source]
    return f"nets.py:{number}"


@pytest.fixture(autouse=True)
def here(here, monkeypatch):
    """A working folder with nets.py; nothing that is imported from it stays."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    (here / "nets.py").write_text(NETS)
    yield here
    for name in set(sys.modules) - before:
        module = sys.modules[name]
        if str(here) in f"{getattr(module, '__file__', '')} {getattr(module, '__path__', '')}":
            del sys.modules[name]


def write(file, source):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(dedent(source))


def reason(function, *args, **options):
    """The one line that it fails with."""
    with pytest.raises(DscalcError) as caught:
        function(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is loaded.


@pytest.mark.parametrize("target", ["nets.py:net", "nets:net", "nets.py:family.small.net"])
def test_what_a_callable_makes_is_on_meta(target):
    [conv] = load_model(target, {"width": 4})
    assert conv.weight.is_meta
    assert conv.weight.shape == (4, 3, 3, 3)


def test_the_module_itself_is_imported_outside_meta():
    load_model("nets.py:net", {})
    assert sys.modules["nets"].table.device.type == "cpu"


def test_without_meta_the_model_has_values():
    assert not load_model("nets.py:net", {}, meta=False)[0].weight.is_meta


def test_what_cannot_be_made_on_meta_is_made_for_real_and_printed_once(capsys):
    assert load_model("nets.py:by_value", {}).weight.device.type == "cpu"
    assert capsys.readouterr().err.count("tried") == 1


def test_a_trial_imports_modules_once_and_with_values(here):
    write(here / "values.py", OPERATOR.format(name="lazy") + "table = torch.linspace(0, 1, 3)")
    write(
        here / "late.py",
        """
        from torch import nn
        def net():
            from values import table
            model = nn.Linear(3, 1)
            model.weight.sum().item()  # the trial fails
            model.register_buffer("table", table)
            return model
        """,
    )
    model = load_model("late.py:net", {})
    assert model.table.tolist() == [0, 0.5, 1]
    assert not model.weight.is_meta


def test_what_a_failed_trial_wrote_is_not_shown_and_its_streams_stay_open(here, capsys):
    write(
        here / "loud.py",
        """
        import logging, sys
        from torch import nn
        log = logging.getLogger("loud")
        log.propagate = False
        def net(meta=True):
            sys.stderr.write("downloading\\n")
            log.handlers = [logging.StreamHandler()]
            model = nn.Linear(3, 1)
            return model if meta else nn.Linear(int(model.weight.sum().item()) * 0 + 3, 1)
        """,
    )
    load_model("loud.py:net", {"meta": False})
    assert capsys.readouterr().err == "downloading\n"
    load_model("loud.py:net", {})
    assert capsys.readouterr().err == "downloading\n"
    sys.modules["loud"].log.warning("later")
    assert capsys.readouterr().err == "later\n"


def test_a_formula_that_a_callable_registers_may_be_registered_at_each_call(here):
    write(
        here / "formula.py",
        OPERATOR.format(name="counted")
        + """
from torch import nn
from torch.utils.flop_counter import register_flop_formula
def net(needs_values=True):
    @register_flop_formula(torch.ops.dscalc_test.counted)
    def formula(*shapes, **_):
        return 2
    model = nn.Linear(3, 1)
    if needs_values:
        model.weight.sum().item()
    return model
""",
    )
    for values in (True, False):
        load_model("formula.py:net", {"needs_values": values})
        load_model("formula.py:net", {"needs_values": values}, meta=False)


def test_an_instance_is_returned_as_it_is():
    model = load_model("nets.py:instance", {})
    assert model is sys.modules["nets"].instance
    assert not model[0].weight.is_meta


@pytest.mark.parametrize(
    ("dtype", "became"),
    [(None, torch.float32), ("bfloat16", torch.bfloat16), ("int64", torch.float32)],
    ids=["none leaves the model", "a float converts it", "whole numbers are of inputs alone"],
)
def test_a_dtype_is_of_the_parameters_where_it_is_one_of_floats(dtype, became):
    assert load_model("nets.py:net", {}, dtype)[0].weight.dtype is became


def test_a_file_is_run_once_for_the_model_and_its_inputs(capsys):
    load_model("nets.py:net", {})
    inputs_from("nets.py:number")
    assert capsys.readouterr().err.count("imported") == 1


def test_what_it_prints_goes_to_stderr_and_argv_is_the_file_alone(capsys):
    arguments = sys.argv
    load_model("nets.py:net", {})
    out, err = capsys.readouterr()
    assert out == ""
    assert "imported with ['nets.py']\n" in err
    assert err.endswith("called with ['nets.py']\n")
    assert sys.argv is arguments


@pytest.mark.filterwarnings("default")
def test_warnings_are_the_users_alone(capsys):
    load_model("nets.py:with_weights", {})  # torch warns that it copies nothing to meta
    assert "Warning" not in capsys.readouterr().err
    load_model("nets:net", {})


def test_a_warning_is_shown_once():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        load_model("nets.py:warned_again", {})
    assert [str(warning.message) for warning in shown] == ["old"]


def test_a_warning_without_a_place_is_of_the_target(here):
    write(
        here / "shows.py",
        """
        import sys
        from dscalc.pytorch.load import load_model
        load_model("nets.py:warned", {})
        """,
    )
    shown = subprocess.run(
        [sys.executable, "shows.py"],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert shown.splitlines()[-1] == "nets.py:warned: UserWarning: old"


def test_warnings_of_packages_are_not_shown(here):
    write(
        here / "site-packages/old_package.py",
        """
        import warnings
        warnings.warn("mine", FutureWarning)
        warnings.warn("yours", FutureWarning, stacklevel=2)
        """,
    )
    write(here / "mine.py", "import old_package\nfrom torch import nn\nnet = nn.Identity()")
    shown = subprocess.run(
        [sys.executable, "-m", "dscalc", "model", "mine.py:net", "--input", "3"],
        env={"PYTHONPATH": ":".join([*sys.path, str(here / "site-packages")])},
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    assert "mine.py:1: FutureWarning: yours" in shown
    assert "FutureWarning: mine" not in shown


# Where files lie.


def test_a_file_of_a_package_imports_relatively_and_from_beside_it(here):
    write(here / "pkg/__init__.py", "")
    write(here / "pkg/deep/__init__.py", "from torch import nn\nlayer = nn.Linear(3, 4)")
    write(here / "pkg/block.py", "size = 5")
    write(here / "pkg/deep/beside.py", "more = 1")
    write(
        here / "pkg/deep/net.py",
        """
        from torch import nn
        from ..block import size
        import beside
        def net():
            return nn.Linear(size, beside.more)
        """,
    )
    assert load_model("pkg/deep/net.py:net", {}).weight.shape == (1, 5)
    assert load_model("pkg.deep.net:net", {}).weight.shape == (1, 5)
    assert load_model("pkg/deep/__init__.py:layer", {}).weight.shape == (4, 3)


def test_a_file_elsewhere_imports_from_its_folder_and_from_the_working_folder(here):
    write(here / "top.py", "a = 2")
    write(here / "far/beside.py", "b = 3")
    write(
        here / "far/net.py",
        """
        from torch import nn
        from top import a
        from beside import b
        net = nn.Linear(a, b)
        """,
    )
    assert load_model("far/net.py:net", {}).weight.shape == (3, 2)


OPERATOR = """
import torch
torch.library.define("dscalc_test::{name}", "(Tensor x) -> Tensor")  # a process takes it once
"""


@pytest.mark.parametrize("folder", ["", "models", "src.v2/models"])
def test_a_folder_without_init_is_a_package_where_a_file_needs_one(folder, here):
    write(here / folder / "net.py", "from .parts import conv\ndef net():\n    return conv()")
    write(here / folder / "parts.py", "from .deep.layers import conv")
    write(here / folder / "deep/layers.py", "from ..sizes import conv")
    write(
        here / folder / "sizes.py",
        OPERATOR.format(name=f"bare_{len(folder)}")
        + "from torch import nn\ndef conv():\n    return nn.Conv2d(3, 8, 3)",
    )
    assert load_model(f"{folder or '.'}/net.py:net", {}).out_channels == 8
    assert load_model(f"{folder or '.'}/deep/layers.py:conv", {}).out_channels == 8


def test_two_folders_of_one_name_are_two_packages(here, monkeypatch):
    for place, width in (("one", 3), ("two", 4)):
        write(here / place / "models/net.py", "from .parts import width, net")
        write(
            here / place / "models/parts.py",
            f"from torch import nn\nwidth = {width}\nnet = nn.Linear(1, width)",
        )
        monkeypatch.chdir(here / place)
        assert load_model("models/net.py:net", {}).out_features == width


HEAVY = {
    "pkg/__init__.py": OPERATOR.format(name="heavy") + "import nosuch",
    "pkg/sub/__init__.py": "from .part import size\nraise ValueError('no licence')",
    "pkg/sub/part.py": OPERATOR.format(name="part") + "size = 5",
    "pkg/sub/net.py": "from torch import nn\nfrom .part import size\nnet = nn.Linear(size, 1)",
}


def test_a_file_is_loaded_without_a_package_that_cannot_be_imported(here, capsys):
    for file, source in HEAVY.items():
        write(here / file, source)
    assert load_model("pkg/sub/net.py:net", {}).in_features == 5
    assert capsys.readouterr().err == (
        "note: pkg cannot be imported (No module named 'nosuch'); net.py is loaded without it\n"
        "note: pkg.sub cannot be imported (ValueError: no licence); net.py is loaded without it\n"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("from . import missing", "pkg/__init__.py:4: importing pkg/sub/net.py failed (No module"),
        ("1 / 0", "pkg/__init__.py:4: importing pkg/sub/net.py failed (No module named 'nosuch')"),
        ("def f(:", "pkg/__init__.py:4: importing pkg/sub/net.py failed (No module named 'nosuch'"),
    ],
)
def test_the_error_of_its_package_is_told_where_the_file_fails_too(source, said, here):
    for file, text in HEAVY.items():
        write(here / file, text)
    write(here / "pkg/__init__.py", "import sys\n\n\nimport nosuch")
    write(here / "pkg/sub/part.py", "size = 5")
    write(here / "pkg/sub/net.py", source)
    assert reason(load_model, "pkg/sub/net.py:net", {}).startswith(said)
    assert "pkg" not in sys.modules


def test_an_error_of_the_file_itself_is_not_tried_again(here, capsys):
    write(here / "pkg/__init__.py", "from .net import net")
    write(here / "pkg/net.py", "print('run')\n1 / 0")
    assert reason(load_model, "pkg/net.py:net", {}).startswith("pkg/net.py:2: importing ")
    assert capsys.readouterr().err.count("run") == 1


def test_a_file_may_be_called_like_a_module_of_python(here):
    import random

    write(here / "random.py", "from torch import nn\nnet = nn.Linear(1, 2)")
    assert load_model("random.py:net", {}).weight.shape == (2, 1)
    assert sys.modules["random"] is random


def test_a_package_of_a_name_that_is_taken_is_refused(here):
    write(here / "email/__init__.py", "")
    write(here / "email/message.py", "")
    import email.message

    assert reason(load_model, "email/message.py:net", {}) == (
        "email/message.py is email.message, but another module of that name is already "
        f"imported ({email.message.__file__}); rename its package"
    )


# What is said where it fails.

ENDING = "install it, or give a file with its ending, such as mymodels.py:Net"
ERRORS = {
    "nets.py": "a model must be MODULE:ATTR, such as mymodels.py:Net, got 'nets.py'",
    ":net": "a model must be MODULE:ATTR, such as mymodels.py:Net, got ':net'",
    "net.py:net": "there is no file 'net.py'; did you mean nets.py?",
    "missing.py:net": "there is no file 'missing.py'; check the path",
    "none/net.py:net": "there is no file 'none/net.py'; check the path",
    "./nets:net": "there is no module './nets' here; did you mean the file ./nets.py?",
    "netz:net": "there is no module 'netz' here; did you mean nets?",
    "torch.nnn:Linear": "there is no module 'torch.nnn' here; did you mean torch.nn?",
    "missing.deep:net": f"there is no module 'missing.deep' here; {ENDING}",
    "nets.py:nett": "nets.py has no attribute 'nett'; did you mean net?",
    "nets:zzz": "nets has no attribute 'zzz'; check the spelling",
    "nets.py:family.smal": "nets.py has no attribute 'smal'; did you mean small?",
    "nets.py:number": "nets.py:number is of type int; it must be an nn.Module, or a callable that "
    "returns one",
    "nets.py:words": "nets.py:words returns a str; it must return an nn.Module",
    "nets.py:Needy": "nets.py:Needy cannot be called like this (Needy.__init__() missing 1 "
    "required positional argument: 'channels'); it takes (channels, *, classes, act=...): give "
    """--kwargs '{"channels": ..., "classes": ...}', or name a function that calls it""",
}
NEEDED = "assert architecture is not None"
CUDA = "self.net = nn.Linear(3, 4).cuda()"
FAILURES = {  # the line, and what is said of it
    "needs": (NEEDED, f"failed (AssertionError: {NEEDED})"),
    "nested": (NEEDED, f"failed (AssertionError: {NEEDED})"),
    "fails": (r'raise ValueError("no weights\nat all")', "failed (ValueError: no weights)"),
    "unfinished": ("raise NotImplementedError", "failed (NotImplementedError)"),
    "leaves": ("sys.exit(3)", "failed (SystemExit: 3)"),
    "in_torch": ("return torch.zeros(2) @ torch.zeros(3)", "failed (RuntimeError: inconsistent "
                 "tensor size, expected tensor [2] and src [3] to have the same number of elements,"
                 " but got 2 and 3 elements respectively)"),
    "without_weights": ("nn.Linear(3, 2).load_state_dict({})", "failed (RuntimeError: Error(s) in "
                        "loading state_dict for Linear: Missing key(s) in state_dict: "
                        '"weight", "bias".)'),
    "OnCuda": (CUDA, f"needs CUDA in '{CUDA}', but torch finds none here; build the model on the "
               "CPU: dscalc needs no GPU"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_an_error_of_the_users_code_names_the_users_line(name):
    if name == "OnCuda" and torch.cuda.is_available():
        pytest.skip("CUDA is there")
    line, said = FAILURES[name]
    assert reason(load_model, f"nets.py:{name}", {}) == f"{at(line)}: {name}() {said}"


@pytest.mark.parametrize("target", ERRORS)
def test_an_error_names_the_value_the_place_and_the_fix(target):
    assert reason(load_model, target, {}) == ERRORS[target]


def test_an_unknown_keyword_has_a_near_name():
    assert reason(load_model, "nets.py:net", {"wide": 3}) == (
        "nets.py:net cannot be called like this (net() got an unexpected keyword argument 'wide'); "
        "it takes (width=16, kernel_size=3): did you mean width?"
    )


OBJECTS = """
from torch import nn


class Config:
    width = 3


class Typed(nn.Module):
    def __init__(self, settings: Config, depth: int):
        super().__init__()
        self.layer = nn.Linear(settings.width, 1)


class Called(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.layer = nn.Linear(cfg.width, 1)


def older():
    from torch.nn import NoSuchLayer


def newer():
    import torch.nn.nosuch.helpers
"""


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("Typed", {}, "settings seems to be an object, which JSON cannot give; name a function of "
         "your own that returns Typed(settings=..., depth=...)"),
        ("Called", {}, "cfg seems to be an object, which JSON cannot give; name a function of your "
         "own that returns Called(cfg=...)"),
        ("Called", {"cfg": {"width": 3}}, "JSON gives plain values: name a function of your own "
         "that returns Called(cfg=...)"),
        ("older", {}, f"; torch {torch.__version__} is installed, and the code is for another "
         "version of it"),
        ("newer", {}, f"; torch {torch.__version__} is installed, and the code is for another "
         "version of it"),
    ],
    ids=["an object by its hint", "by its name", "a dict for it", "a name", "a module"],
)  # fmt: skip
def test_what_json_or_this_version_cannot_give_is_said(name, arguments, said, here):
    write(here / "objects.py", OBJECTS)
    assert reason(load_model, f"objects.py:{name}", arguments).endswith(said)


def test_an_instance_takes_no_keywords():
    assert reason(load_model, "nets.py:instance", {"width": 1}) == (
        "nets.py:instance is already a module and takes no --kwargs"
    )


def test_an_error_of_no_users_file_says_how_to_see_more():
    bad = {"in_channels": 3, "out_channels": 4, "kernel_size": 3, "groups": 2}
    assert reason(load_model, "torch.nn:Conv2d", bad) == (
        "torch.nn:Conv2d failed (ValueError: in_channels must be divisible by groups); -v shows "
        "where"
    )


IMPORTS = {
    "1 / 0": "failed (ZeroDivisionError: division by zero)",
    "def f(:": "failed (SyntaxError: invalid syntax)",
    "import nosuch": "failed (No module named 'nosuch'); install it, or run dscalc in its folder",
    "raise SystemExit(2)": "failed (SystemExit: 2); put the code that it runs under if __name__ == "
    "'__main__':",
}


@pytest.mark.parametrize("source", IMPORTS)
@pytest.mark.parametrize("via", [False, True], ids=["itself", "a file that imports it"])
def test_an_import_that_fails_names_the_line(source, via, here):
    write(here / "broken.py", f"import sys\n{source}\n")
    write(here / "via.py", "import broken\n")
    file = "via.py" if via else "broken.py"
    assert (
        reason(load_model, f"{file}:net", {}) == f"broken.py:2: importing {file} {IMPORTS[source]}"
    )
    assert not {"broken", "via"} & set(sys.modules)


def test_a_relative_import_of_a_file_that_another_imports_absolutely_has_no_package(here):
    write(here / "part.py", "from . import block")
    write(here / "via.py", "import part")
    assert reason(load_model, "via.py:net", {}) == (
        "part.py:1: importing via.py failed (ImportError: attempted relative import with no known "
        "parent package); add an empty __init__.py beside it to make the folder a package"
    )


def test_a_file_that_reads_its_command_line_is_one_error(here, capsys):
    write(
        here / "train.py",
        """
        from argparse import ArgumentParser
        parser = ArgumentParser()
        parser.add_argument("--data", required=True)
        parser.parse_args()
        """,
    )
    assert reason(load_model, "train.py:net", {}).startswith(
        "train.py:5: importing train.py failed (SystemExit: 2); "
    )


def test_the_traceback_of_a_users_error_begins_in_their_file():
    with pytest.raises(DscalcError) as caught:
        load_model("nets.py:nested", {})
    error = caught.value.__cause__
    assert error.__traceback__.tb_frame.f_code.co_name == "nested"
    assert error.__context__ is None
    file, line, source = user_line(error)
    assert f"{file}:{line}" == at(source) == at(NEEDED)


def test_a_file_outside_the_working_folder_is_named_in_full(here, monkeypatch):
    (here / "empty").mkdir()
    monkeypatch.chdir(here / "empty")
    assert reason(load_model, f"{here}/nets.py:fails", {}).startswith(f"{here}/nets.py:")


# Inputs from words.


def described(value):
    return tuple(value.shape), str(value.dtype).removeprefix("torch."), value.device.type


@pytest.mark.parametrize(
    ("word", "shape", "dtype"),
    [
        ("3x8x9", (2, 3, 8, 9), "float32"),
        ("77:int64", (2, 77), "int64"),
        (":int64", (2,), "int64"),
        ("3x8:float16", (2, 3, 8), "float16"),
        ("5:bool", (2, 5), "bool"),
        ("5:complex64", (2, 5), "complex64"),
    ],
)
@pytest.mark.parametrize("keyword", ["", "some="], ids=["by position", "by keyword"])
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_a_word_is_a_tensor_with_the_batch_in_front(word, shape, dtype, keyword, device):
    inputs = read_inputs([f"{keyword}{word}"], 2, None, device)
    [value] = inputs.kwargs.values() if keyword else inputs.args
    assert described(value) == (shape, dtype, device)


def test_positions_keep_their_order_and_keywords_their_names():
    inputs = read_inputs(["1", "mask=2", "3:int32"], 4, "float64")
    assert [value.shape[1] for value in inputs.args] == [1, 3]
    assert described(inputs.kwargs["mask"]) == ((4, 2), "float64", "meta")


def test_values_are_the_same_each_time_differ_and_leave_the_random_state():
    state = torch.get_rng_state()
    words = ["8", "8", "8:int64", "8:bool"]
    first, again = (read_inputs(words, 1, None, "cpu").args for _ in range(2))
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first[0], first[1])
    assert (first[2] == 0).all()
    assert first[3].all()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("null", None), ("10", 10), ("0.5", 0.5), ('"a:=b"', "a:=b"), ("-1", -1)],
)
def test_a_plain_value_is_passed_as_it_is(text, value):
    inputs = read_inputs(["3", f"flag:={text}", f":={text}"], 2)
    assert inputs.kwargs == {"flag": value}
    assert inputs.args[1:] == (value,)
    assert type(inputs.kwargs["flag"]) is type(value)


@pytest.mark.parametrize(
    ("text", "dtype", "values"),
    [
        ("[100]", torch.int64, [100]),
        ("[[true, false]]", torch.bool, [[True, False]]),
        ("[1, 0.5]", torch.float16, [1, 0.5]),
        ("[]", torch.float16, []),
    ],
)
def test_nested_lists_are_a_tensor_without_a_batch_axis(text, dtype, values):
    tensor = read_inputs([f"sizes:={text}"], 2, "float16").kwargs["sizes"]
    assert tensor.tolist() == values
    assert tensor.dtype is dtype
    assert read_inputs([":=[0.5]"], 2).args[0].dtype is torch.float32


def test_values_stand_in_the_title_as_they_were_given():
    words = ["3x8", "ids=2:int64", "flag:=true", "sizes:=[1, 2]", 'how:="a"']
    inputs = read_inputs(words, 2)
    others = {"nest": [torch.zeros(1)], "other": object()}
    assert inputs_in_words(inputs.args, inputs.kwargs | others) == f"2 x {', '.join(words)}"


SHAPE = "--input must be a shape such as 3x224x224, got"
DTYPES = (
    "give one of float32, float64, float16, bfloat16, complex64, complex128, int64, int32, int16, "
    "int8, uint8, bool"
)
LISTS = (
    "give numbers, or lists of them of one length, or write a function and name it with --inputs"
)
WORDS = {
    "": f"{SHAPE} ''",
    "3xx8": f"{SHAPE} '3xx8'",
    "mask=": f"{SHAPE} 'mask='",
    "3,224,224": f"{SHAPE} '3,224,224'; write 3x224x224",
    "(3, 8, 8)": f"{SHAPE} '(3, 8, 8)'; write 3x8x8",
    "3x0x8": f"{SHAPE} '3x0x8'; each size is at least 1",
    "a=3x-8": f"{SHAPE} 'a=3x-8'; each size is at least 1",
    "3d=8": "the keyword of an --input must be a name such as mask=1x32, got '3d=8'",
    "=8": "the keyword of an --input must be a name such as mask=1x32, got '=8'",
    "twice=1": "--input twice is given twice, got 'twice=1'; give it once",
    "8:int46": "--input '8:int46': 'int46' is not a dtype for an input; did you mean int64 or "
    "int16?",
    "flag=true": f"{SHAPE} 'flag=true'; for a value write flag:=true",
    "n=[100]": f"{SHAPE} 'n=[100]'; for a value write n:=[100]",
    "t:=int64": "the value of --input 't:=int64' is no JSON; for one number per sample write "
    "t=:int64",
    "t:=": "the value of --input 't:=' is no JSON; write JSON after :=, such as true, 10 or [100]",
    "3d:=8": "the keyword of an --input must be a name such as mask=1x32, got '3d:=8'",
    "twice:=1": "--input twice is given twice, got 'twice:=1'; give it once",
    "t:=[[1], [2, 3]]": "--input 't:=[[1], [2, 3]]' gives no tensor (ValueError: expected sequence "
    f"of length 1 at dim 1 (got 2)); {LISTS}",
    "t:={}": "--input 't:={}' gives no tensor (RuntimeError: Could not infer dtype of dict); "
    f"{LISTS}",
    "8:": f"--input '8:': '' is not a dtype for an input; {DTYPES}",
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_that_is_wrong_is_told_the_rule(word):
    assert reason(read_inputs, ["twice=8", word], 1) == WORDS[word]


def test_a_size_that_torch_refuses_is_named():
    assert reason(read_inputs, [f"{10**30}x8"], 1).startswith(
        f"torch cannot make an input of 1x{10**30}x8 ("
    )


# Inputs from the user's code.

MAKERS = """
import torch
x, y = torch.ones(1, 3), torch.arange(4)
tensor = x
pair = x, y
by_name = {"left": x, "right": y}
one_dict = ({"left": x, "right": y},)
def made():
    return [x, y]
def wants(size):
    return size
net = torch.nn.Identity()
numbered = {1: x}
"""


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("tensor", "x", ""),
        ("pair", "x y", ""),
        ("made", "x y", ""),
        ("by_name", "", "left=x right=y"),
    ],
)
def test_a_dict_gives_keywords_a_tuple_positions(name, args, kwargs, here):
    write(here / "makes.py", MAKERS)
    inputs = inputs_from(f"makes.py:{name}")
    made = vars(sys.modules["makes"])
    assert all(a is made[b] for a, b in zip(inputs.args, args.split(), strict=True))
    named = dict(word.split("=") for word in kwargs.split())
    assert inputs.kwargs == {name: made[value] for name, value in named.items()}


def test_a_dict_in_a_tuple_is_one_position(here):
    write(here / "makes.py", MAKERS)
    [batch] = inputs_from("makes:one_dict").args
    assert list(batch) == ["left", "right"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tensr", "makes.py has no attribute 'tensr'; did you mean tensor?"),
        ("wants", "makes.py:wants cannot be called like this (wants() missing 1 required "
         "positional argument: 'size'); it takes (size): it is called without arguments"),
        ("net", "makes.py:net is a model (Identity); --inputs names the inputs of a model"),
        ("numbered", "makes.py:numbered is a dict with the key '1', but its keys must be keywords "
         "of forward; if it takes the dict itself, make it a tuple: (it,)"),
    ],
)  # fmt: skip
def test_inputs_that_cannot_be_made_are_one_line(name, said, here):
    write(here / "makes.py", MAKERS)
    assert reason(inputs_from, f"makes.py:{name}") == said


class Sample:
    def __init__(self, image):
        self.image, self.again, self.note = image, image, "kept"


def test_every_tensor_of_a_nest_is_moved_and_the_rest_is_kept():
    image, ids = torch.ones(1, 3, requires_grad=True), torch.arange(4)
    given = Inputs(({"a": [image * 2, 7]}, Sample(image)), {"ids": ids})
    twins = materialised(given, "meta")
    [a, seven], sample = twins.args[0]["a"], twins.args[1]
    assert [a.is_meta, sample.image.is_meta, twins.kwargs["ids"].is_meta] == [True] * 3
    assert (seven, sample.note, sample.again is sample.image) == (7, "kept", True)
    assert not given.args[1].image.is_meta

    back = materialised(twins, "cpu")
    assert described(back.args[1].image) == ((1, 3), "float32", "cpu")
    assert back.kwargs["ids"].tolist() == [0] * 4
    same = materialised(given, "cpu").kwargs["ids"]
    assert same.tolist() == ids.tolist()
    assert same is not ids


def test_inputs_that_cannot_be_copied_are_one_line():
    assert reason(materialised, Inputs((iter(()), (i for i in ()))), "meta").startswith(
        "the inputs cannot be copied to meta (TypeError: "
    )


# What forward takes.


class Siamese(nn.Module):
    def forward(self, *, left: torch.Tensor, right: torch.Tensor, scale=None):
        return left - right


class Flags(nn.Module):
    def forward(self, image, inference, step: int, name: "str"):
        return image


class Graph(nn.Module):
    def forward(self, x, edge_index):
        row, _ = edge_index
        return x[row]


class OneDict(nn.Module):
    def forward(self, batch):
        return batch["left"]


class OneList(nn.Module):
    def forward(self, features):
        a, b = features
        return a - b


SIAMESE = "forward takes (*, left, right, scale=None)"


@pytest.mark.parametrize(
    ("model", "words", "said"),
    [
        (Siamese, ["1"], f"too many positional arguments); {SIAMESE}: give --input left=CxHxW "
         "--input right=CxHxW"),
        (Siamese, ["left=1", "right=1", "scal=1"], "got an unexpected keyword argument 'scal'); "
         f"{SIAMESE}: for 'scal', did you mean scale?"),
        (OneDict, [], "missing a required argument: 'batch'); forward takes (batch): give "
         "--input batch=CxHxW"),
        (OneDict, ["1", "1"], "too many positional arguments); forward takes (batch): give "
         "--input batch=CxHxW"),
        (Flags, ["1"], "missing a required argument: 'inference'); forward takes (image, inference,"
         " step, name): give --input image=CxHxW --input inference=CxHxW --input step:=1 --input "
         "name:='\"...\"'; if it is a flag or a number, inference:=true"),
        (Graph, ["8"], "missing a required argument: 'edge_index'); forward takes (x, edge_index):"
         " give --input x=CxHxW --input edge_index:=[[0,1],[1,0]]"),
    ],
    ids=["by position", "unknown keyword", "one missing", "one too many", "flags", "a graph"],
)  # fmt: skip
def test_inputs_that_do_not_fit_are_refused_with_what_fits(model, words, said):
    inputs = read_inputs(words, 1)
    with command_line():
        refused = reason(check_inputs, model(), inputs)
    assert refused == (f"{model.__name__} cannot run on these inputs ({said}")


def test_inputs_that_fit_and_those_of_which_only_a_call_can_tell_pass():
    class Own(OneDict):
        def __call__(self, left, right):
            return super().__call__({"left": left, "right": right})

    check_inputs(Siamese(), read_inputs(["left=1", "right=1"], 1))
    check_inputs(Own(), read_inputs(["1", "1"], 1))


@pytest.mark.parametrize("model", [OneDict(), OneList()], ids=["a dict", "a list"])
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")
def test_a_tensor_where_a_nest_is_taken_points_to_inputs(model):
    inputs = read_inputs(["1x28x28"], 1)
    check_inputs(model, inputs)
    with pytest.raises((TypeError, ValueError)) as caught:
        model(*inputs.args)
    with command_line():
        said = input_hint(model, inputs, caught.value)
    assert said.endswith(
        ", which seems not to be a plain tensor: write a function that returns (it,) and name it "
        "with --inputs MODULE:ATTR"
    )


def test_the_edges_of_a_graph_point_to_inputs_without_a_batch_axis():
    with command_line():
        said = input_hint(Graph(), read_inputs(["8", "2x4"], 1), ValueError("not enough values"))
    assert said == (
        "forward takes (x, edge_index): --input adds a batch axis; --inputs MODULE:ATTR gives "
        "inputs as they are"
    )


INDEXED = {
    "embedding": lambda x, table: F.embedding(x, table),
    "embedding_bag": lambda x, table: F.embedding_bag(x, table),
    "an index": lambda x, table: table[x],
    "gather": lambda x, table: table.gather(0, x),
    "index_select": lambda x, table: table.index_select(0, x[0]),
    "take": lambda x, table: table.take(x),
    "one_hot": lambda x, table: F.one_hot(x, 10),
}


@pytest.mark.parametrize("function", INDEXED.values(), ids=INDEXED)
@pytest.mark.parametrize(
    ("word", "fix"), [("5", "5:int64"), ("x=5", "x=5:int64")], ids=["position", "keyword"]
)
def test_an_index_of_the_wrong_dtype_points_to_int64(function, word, fix):
    given = read_inputs([word], 2, device="cpu")
    table = torch.ones(10, 5)
    function(*tensors_in_order(read_inputs([fix], 2, device="cpu")), table)  # the fix works
    with pytest.raises((RuntimeError, IndexError)) as caught:
        function(*tensors_in_order(given), table)
    hint = partial(input_hint, OneX(), given, caught.value)
    with command_line():
        assert hint() == f"forward takes (x): if it holds indices, write --input {fix}"
    assert hint().endswith(": if it holds indices, give torch.zeros((2, 5), dtype=torch.int64)")


def tensors_in_order(inputs):
    return [*inputs.args, *inputs.kwargs.values()]


class OneX(nn.Module):
    def forward(self, x): ...


def test_of_several_inputs_any_may_be_the_index():
    error = IndexError("tensors used as indices must be long, int, byte or bool tensors")
    with command_line():
        said = input_hint(Siamese(), read_inputs(["left=3:int64", "right=4x5"], 1), error)
    assert said == (
        f"{SIAMESE}: the input that holds indices needs a dtype, such as --input right=4x5:int64"
    )


def test_another_error_leaves_shapes_and_dtypes_to_check():
    said = input_hint(OneDict(), read_inputs(["3"], 1), RuntimeError("sizes do not match"))
    assert said == "forward takes (batch): check the shapes and dtypes"
