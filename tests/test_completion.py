"""What a shell offers after a tab."""

import pytest
from vocabulary import fields

from dscalc.cli import main
from dscalc.commands.model import FIELDS as MODEL
from dscalc.core.blocks import SEPARABLE, STANDARD, Block


@pytest.fixture
def complete(capsys, monkeypatch):
    """Ask as bash does: ``complete("dscalc network x --get ")``, with the cursor at the end."""

    def complete(line):
        monkeypatch.setenv("_DSCALC_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        with pytest.raises(SystemExit):
            main([])
        return capsys.readouterr().out.split()

    return complete


def names(command, block, unit="macs", *, numbers=False):
    found = MODEL(block, unit) if command == "model" else fields(command, block, unit)
    return [field.name for field in found if field.is_number or not numbers]


@pytest.mark.parametrize(
    ("line", "known"),
    [
        ("3 64 3 14", ("compare", SEPARABLE)),
        ("3 64 3 14 --as bottleneck", ("compare", Block.parse("bottleneck"))),
        ("3 64 3 14 --unit flops", ("compare", SEPARABLE, "flops")),
        ("compare 3 64 3 14 --as no_such_block", ("compare", SEPARABLE)),
        ("blocks 3 64 3 14", ("blocks", STANDARD)),
        ("network vgg16", ("network", None)),
        ("network vgg16 --as standard", ("network", STANDARD)),
        ("network vgg16 --as separable --unit flops", ("network", SEPARABLE, "flops")),
        ("model m:Net", ("model", None)),
        ("model m:Net --as separable", ("model", SEPARABLE)),
        ("bench 3 64 3 14", ("bench", SEPARABLE)),
        ("bench 3 64 3 14 --as all", ("bench", STANDARD)),
        ("bench 3 64 3 14 --as separable,fused", ("bench", STANDARD)),
    ],
)
def test_a_field_is_one_that_this_command_line_knows(line, known, complete):
    assert complete(f"dscalc {line} --get ") == names(*known)
    for option in ("--assert", "--assert-each", "--where", "--sort"):
        assert complete(f"dscalc {line} {option} ") == names(*known, numbers=True)


def test_a_model_s_file_offers_its_names(complete, here):
    """Also to bash, which splits words at colons."""
    (here / "nets.py").write_text("class Net: pass\nclass _No: pass\ndef new(): pass\n")
    assert complete("dscalc model nets.py:") == ["nets.py:Net", "nets.py:new"]
    assert complete("dscalc model nets.py:Ne") == ["nets.py:Net"]
    assert complete("dscalc model nets.py :") == ["Net", "new"]
    assert complete("dscalc model nets.py : Ne") == ["Net"]
    assert complete("dscalc model a.py:b nets.py : ne") == ["new"]
    assert complete("dscalc model nets") == []  # the shell offers files


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("", "compare blocks network model bench check"),
        ("3 64 3 14 --where 'separable_m", "separable_macs"),
        ("3 64 3 14 --as gr", "grouped:8"),
        ("3 64 3 14 --as st", ""),  # what it is compared with
        ("network vgg16 --as st", "standard"),
        ("bench 3 64 3 14 --as a", "all"),
        ("bench 3 64 3 14 --as separable,gr", "separable,grouped:8"),
        ("blocks 3 64 3 14 --only fused,sep", "fused,separable"),
        ("network vgg", "vgg16"),
        ("network vgg16 mobilenet", "mobilenet_v1 mobilenet_v2"),
        ("--version ch", "check"),  # and no version
        ("check -f ", "table json jsonl csv markdown svg github"),
        ("network --list vgg", "vgg16"),
        *(
            (f"{command} -f ", "table json jsonl csv markdown svg")
            for command in ("3", "blocks 3", "network x", "model x", "bench 3")
        ),
    ],
)
def test_what_is_offered(line, offered, complete):
    assert complete(f"dscalc {line}") == offered.split()
