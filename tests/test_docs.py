"""The documentation says what the program does: every command, example, number and link in it."""

import doctest
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from importlib.metadata import version

import measure_peers
import pytest
import write_docs
import yaml
from torch.utils.flop_counter import flop_registry
from write_docs import (
    COMMANDS,
    IMAGES,
    PAGES,
    PICTURES,
    ROOT,
    Shell,
    blocks,
    drawn,
    known,
    rewritten,
    workplace,
)

from dscalc.inputs.network_file import _COLUMNS, _KNOWN
from dscalc.pytorch.operators import LEAVES

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FLAGS = doctest.REPORT_NDIFF


def names(path):
    return path.relative_to(ROOT).as_posix()


def prose(page):
    """A page without its fenced blocks and inline code."""
    lines = page.split("\n")
    for block in blocks(page):
        lines[block.first : block.last] = [""] * (block.last - block.first)
    return re.sub(r"`[^`\n]*`", "", "\n".join(lines))


@pytest.fixture
def place(tmp_path):
    """A folder of its own for the commands of a page, with a plain environment."""
    with workplace(tmp_path):
        yield tmp_path


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_a_page_prints_what_the_program_prints(path, place):
    """Consoles and generated parts, then the Python examples, in one folder."""
    page = path.read_text("utf-8")
    now = rewritten(page, Shell())
    assert page.split("\n") == now.split("\n"), (
        "run python docs/tools/write_docs.py, and read the diff"
    )
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    known = {}
    for block in blocks(page):
        if block.language == "python" and ">>>" in block.text and block.runs:
            test = doctest.DocTestParser().get_doctest(
                block.text + "\n", known, names(path), str(path), block.first
            )
            said = []
            runner.run(test, out=said.append, clear_globs=False)
            assert not runner.summarize(verbose=False).failed, "".join(said)
            known = test.globs
    for file in sorted(place.glob("test_*.py")):
        tests = runpy.run_path(str(file))
        for name in tests:
            if name.startswith("test_"):
                tests[name]()


BUDGETS = [*blocks((ROOT / "docs" / "budgets.md").read_text("utf-8"))]
MODEL = next(block.text for block in BUDGETS if block.file == "mymodels.py")
WORKFLOW, HOOK = (yaml.safe_load(block.text) for block in BUDGETS if block.language == "yaml")
DSCALC = "import sys, dscalc.cli\nsys.exit(dscalc.cli.main())"
GH = """\
import json, os, pathlib, sys
state = pathlib.Path(os.environ["RUNNER_TEMP"], "comments.json")
comments = json.loads(state.read_text())
match sys.argv[1:]:
    case ["api", "--paginate", "repos/me/net/issues/7/comments"]:
        print(*(json.dumps([comment]) for comment in comments), sep="")  # a page each
    case ["api", "--silent", "--method", method, path, "-F", body]:
        text = pathlib.Path(body.removeprefix("body=@")).read_text()
        if method == "POST" and path == "repos/me/net/issues/7/comments":
            comments.append({"id": 90 + len(comments), "body": text})
        else:
            [one] = [c for c in comments if path == f"repos/me/net/issues/comments/{c['id']}"]
            one["body"] = text
        state.write_text(json.dumps(comments))
    case other:
        sys.exit(f"gh: {other}")
"""


def test_the_commit_hook_of_the_page_passes(place):
    (place / "mymodels.py").write_text(MODEL, "utf-8")
    [hook] = HOOK["repos"][0]["hooks"]
    shell = Shell()
    assert shell.run(hook["entry"]) == "38633472\nholds: macs <= 50M\n"
    assert re.search(hook["files"], "mymodels.py")
    (place / "mymodels.py").write_text(MODEL.replace("128", "999"), "utf-8")
    sys.modules.pop("mymodels")
    assert "\nfailed: macs <= 50M: macs is 167" in shell.run(hook["entry"])
    assert shell.code == 1


@pytest.fixture
def workflow(place, monkeypatch):
    """Run the shell steps of the page's workflow as GitHub does; gh keeps comments in a file."""
    (place / "bin").mkdir()
    for tool, code in (
        ("gh", GH),
        ("dscalc", DSCALC),
    ):
        (place / "bin" / tool).write_text(f"#!{sys.executable}\n{code}\n")
        (place / "bin" / tool).chmod(0o755)
    (place / "comments.json").write_text('[{"id": 1, "body": "not <!-- dscalc: cost -->"}]')
    (place / "target").mkdir()
    for name, value in {
        "PATH": f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT), "RUNNER_TEMP": str(place), "GITHUB_REPOSITORY": "me/net",
        "GITHUB_STEP_SUMMARY": str(place / "summary.md"),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)

    known = {"github.repository": "me/net", "github.event.number": "7", "github.token": ""}

    def filled(text):
        return re.sub(r"\$\{\{ (.*?) \}\}", lambda found: known[found[1]], text)

    def workflow():
        codes = {}
        for step in WORKFLOW["jobs"]["cost"]["steps"]:
            if "run" not in step or step["name"] == "Install":
                continue
            env = {name: filled(value) for name, value in step.get("env", {}).items()}
            if all(code == 0 for code in codes.values()) or step.get("if") == "${{ !cancelled() }}":
                codes[step["name"]] = subprocess.run(
                    ["bash", "-e", "-c", step["run"]], env={**os.environ, **env},
                    cwd=step.get("working-directory", "."), capture_output=True, check=False,
                ).returncode  # fmt: skip
        comments = json.loads((place / "comments.json").read_text())
        return codes, [comment["body"] for comment in comments]

    return workflow


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq, which GitHub's machines have")
def test_the_workflow_of_the_page_runs(workflow, place):
    """The first pull request has no baseline; a later one is compared, and edits its comment."""
    (place / "mymodels.py").write_text(MODEL, "utf-8")
    codes, [other, first] = workflow()
    assert set(codes.values()) == {0}
    assert first.startswith("<!-- dscalc: cost -->\n**mymodels.py:Net at 3x64x64**\n")
    assert first.endswith("- [x] macs \\<= 50M: holds, 38,633,472\n")
    (place / "target" / "mymodels.py").write_text(MODEL, "utf-8")
    (place / "mymodels.py").write_text(MODEL.replace("64", "72"), "utf-8")
    codes, comments = workflow()
    assert codes == {"Target branch": 0, "Pull request": 1, "Summary": 0, "Comment": 0}
    assert comments == [other, comments[1]]
    assert "- [ ] macs \\<= 1.05 \\* baseline: fails: 43,352,064" in comments[1]
    assert (place / "summary.md").read_text().count("mymodels.py:Net") == 2


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_what_the_program_draws(name, place):
    picture = (IMAGES / name).read_text("utf-8")
    drawn_by = re.search(r"Matplotlib v([\d.]+)", picture)
    if drawn_by and drawn_by[1] != version("matplotlib"):
        pytest.skip(f"drawn with matplotlib {drawn_by[1]}")
    assert picture == drawn(name, PICTURES[name])


def test_every_picture_is_shown():
    pages = "".join(path.read_text("utf-8") for path in PAGES)
    assert {path.name for path in IMAGES.iterdir()} == set(PICTURES)
    assert [name for name in PICTURES if f"images/{name}" not in pages] == []


def anchors(page):
    """The anchors of the headings of a page, as GitHub and MyST name them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=names)
def test_every_relative_link_resolves(path):
    page = path.read_text("utf-8")
    for link in LINK.findall(prose(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text("utf-8")), link


def test_every_option_that_a_page_names_exists():
    """In a sentence, and in commands that take too long to be run."""
    helped = (ROOT / "docs/cli.md").read_text("utf-8").partition("<!-- end help -->")[0]
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", helped)) | {
        "--target",
        "--index-url",
    }  # of pip
    for path in PAGES:
        page = path.read_text("utf-8")
        said = re.findall(r"`(-[^`\n]+|dscalc [^`\n]+)`", page)
        for block in blocks(page):
            if block.language == "sh":
                said += [line for line in block.text.splitlines() if line.startswith("dscalc ")]
        for text in said:
            options = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", text)
            assert [option for option in options if option not in known] == [], (path.name, text)


def test_the_architecture_names_every_module():
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    tree = page.partition("## The floors")[2].partition("## ")[0]
    for folder in (path for path in (ROOT / "dscalc").iterdir() if (path / "__init__.py").exists()):
        part = re.search(rf"^{folder.name}/ .*?(?=^\w+/|^```)", tree, re.MULTILINE | re.DOTALL)
        assert part, folder.name
        named = set(re.findall(r"\w+\.py", part[0]))
        assert named == {path.name for path in folder.glob("[!_]*.py")}, folder.name
    for path in re.findall(r"`(\w+/\w+\.py)`", page):
        assert (ROOT / path).is_file() or (ROOT / "dscalc" / path).is_file(), path


def test_every_page_is_reached_from_the_first():
    """In one order: that of the list, and that of the site."""
    first = (ROOT / "docs/index.md").read_text("utf-8")
    others = [path.stem for path in PAGES if path.name not in ("README.md", "index.md")]
    trees = [block.text for block in blocks(first) if block.language == "{toctree}"]
    listed = [name for tree in trees for name in tree.split("\n\n")[1].split()]
    assert sorted(listed) == sorted(others)
    assert re.findall(r"\]\((\w+)\.md\)", first.partition("## The pages")[2]) == listed


@pytest.mark.parametrize("command", COMMANDS)
def test_the_fields_are_those_of_the_program(command, run):
    page = (ROOT / "docs/fields.md").read_text("utf-8")
    told = {}
    for heading in ("every command", command):
        table = page.partition(f"## Fields of {heading}\n")[2].partition("\n#")[0]
        for name, unit in re.findall(r"^\| `(\w+)` \| [^|]+ \| ([\w/]*) ?\|", table, re.MULTILINE):
            assert name not in told
            told[name] = unit
    assert told == {field.name: field.unit for field in known(command)}
    if command not in ("model", "bench"):
        args = "mobilenet_v1 --as separable" if command == "network" else "3 64 3 8"
        answer = run(f"{command} {args} --no-verify -f json").stdout
        assert set(told) == set(json.loads(answer)["rows"][0])


def test_the_object_of_bench_is_like_the_others(run):
    """The program writes the others anew; times differ from run to run."""
    page = (ROOT / "docs/json.md").read_text("utf-8")
    text = page.partition("\n## bench\n")[2].partition("```json\n")[2].partition("```")[0]
    shown, answer = json.loads(text), json.loads(run("3 64 3 8 --no-verify -f json").stdout)
    assert list(shown["rows"][0]) == [field.name for field in known("bench")]
    assert list(shown) == list(answer)
    for key in ("schema", "version", "convention", "as"):
        assert shown[key] == answer[key]


def test_network_files_have_every_kind_and_column():
    page = (ROOT / "docs/network_files.md").read_text("utf-8")
    kinds, _, columns = page.partition("\n## Columns\n")
    assert [kind for kind in _COLUMNS if f"`{kind}`" not in kinds] == []
    assert sorted(re.findall(r"^\| `(\w+)` \|", columns, re.MULTILINE)) == _KNOWN


def test_the_table_of_peers_is_what_they_answer():
    """For dscalc, fvcore and torch, which are always there, in the versions that it names."""
    page = (ROOT / "docs/counting.md").read_text("utf-8")
    table = page.partition(measure_peers.BEGIN)[2].partition(measure_peers.END)[0].strip()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    columns = rows[0][1:]
    measured = [counter for counter in measure_peers.COUNTERS[:3] if here(counter, table)]
    for case, row in zip(measure_peers.CASES, rows[2:], strict=False):
        assert row[0] == case.what
        macs = measure_peers.measure(measure_peers.COUNTERS[0], case)
        for counter in measured:
            told = row[1 + columns.index(counter.name)]
            assert told == measure_peers.cell(counter, case, macs), (case.what, counter.name)


def test_the_page_names_every_product_that_torch_counts_as_nothing():
    page = (ROOT / "docs/counting.md").read_text("utf-8")
    begin, end = "and torch counts them as nothing:", "\n\ndscalc cannot"
    listed = page.partition(begin)[2].partition(end)[0]
    known = {str(operator).partition(".")[2] for operator in flop_registry}
    known.add("_scaled_mm")  # torch 2.4 does not count it
    products = {name.removeprefix("aten::") for name in LEAVES} - known
    called = {"affine_grid_generator": "affine_grid"} | dict.fromkeys(
        ("_embedding_bag", "_embedding_bag_forward_only"), "embedding_bag"
    )
    told = set(re.findall(r"`(\w+)`", listed)) - {"mm"}
    # Attention and convolutions come as others; these are for devices and for who names them.
    named = {n for n in products if "attention" not in n and not n.endswith("_overrideable")}
    assert told == {called.get(name, name) for name in named}


def here(counter, table):
    release = version(counter.package).partition("+")[0]
    return counter.package == "dscalc" or f"{counter.package} {release}" in table


def test_a_published_number_agrees_or_says_that_it_differs():
    """The one that differs is the paper's own slip."""
    pages = (ROOT / "docs/accuracy.md").read_text("utf-8")
    told = re.findall(r"^\| .*differs.*$", pages, re.MULTILINE)
    assert len(told) == 1
    assert "4866 M" in told[0]


@pytest.mark.parametrize(
    ("printed", "ours", "is_"),
    [
        ("22,855,952", 22_855_952, "exact"),
        ("22,855,952", 22_855_953, "differs by 0.00%"),
        ("569 M", 568_740_352, "rounded"),
        ("290 M", 290_675_200, "truncated"),
        ("291 M", 290_675_200, "rounded"),
        ("3.8 G", 3_857_973_248, "truncated"),
        ("4866 M", 4_867_293_184, "differs by 0.03%"),
    ],
)
def test_how_a_printed_number_comes_from_ours(printed, ours, is_):
    assert write_docs.agreement(write_docs.Printed("", printed, "", ""), ours) == is_


def test_a_wrong_page_is_found(place):
    """This test can fail: outputs, exit codes and generated parts are compared."""
    page = "```console\n$ dscalc 3 64 3 224 --get separable_macs\n10988545\n$ echo $?\n1\n```\n"
    right = page.replace("10988545", "10988544").replace("\n1\n", "\n0\n")
    assert rewritten(page, Shell()) == right
    page = "<!-- begin networks: -->\nold\n<!-- end networks -->"
    assert "resnet50" in rewritten(page, Shell())


def test_the_readme_tells_how_to_install_and_how_to_test():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    commands = [line for line in lines if line.startswith("python3 -m venv .venv && ")]
    cpu, *ends = [line.rpartition("/bin/")[2] for line in commands]
    assert ends == ["dscalc 3 64 3 224", "pytest"]
    pinned = re.search("^torch==.*", (ROOT / "tests/constraints.txt").read_text(), re.MULTILINE)
    assert cpu == f"pip install {pinned[0]} --index-url https://download.pytorch.org/whl/cpu"
    assert f"\n{cpu}\n" in (ROOT / "docs/index.md").read_text("utf-8")
    assert len(lines) <= 100
