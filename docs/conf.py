"""How Sphinx builds these pages: ``sphinx-build -W -b html docs docs/_build/html``."""

import re
from collections.abc import Iterable, Iterator

from docutils import nodes
from pygments.lexers.shell import BashLexer, BashSessionLexer
from pygments.token import Number, Text, _TokenType
from sphinx.application import Sphinx

import dscalc

project = "dscalc"
version = release = dscalc.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "tools"]
default_role = "py:obj"  # `Conv` in a docstring links to Conv, as it does in the code

toc_object_entries_show_parents = "hide"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_use_ivar = True  # attributes are a list, as arguments are
napoleon_use_param = False  # arguments that share a line in a docstring share it here
autodoc_preserve_defaults = True  # SEPARABLE, and not the tuple that it is
myst_heading_anchors = 3
myst_enable_extensions = ["tasklist"]  # as in a comment on a pull request

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide.css"]
html_title = f"dscalc {release}"
html_show_copyright = False
html_show_sphinx = False
html_use_index = False


class _Command(BashLexer):
    """A command, where 4 of 4,121,925,096 has the colour of the digits that follow it."""

    def get_tokens_unprocessed(
        self, text: str, stack: Iterable[str] = ("root",)
    ) -> Iterator[tuple[int, _TokenType, str]]:
        for at, kind, value in super().get_tokens_unprocessed(text, stack):
            yield at, Text if kind in Number else kind, value


class _Session(BashSessionLexer):
    """A console block, where a line may start with (1 per element): that is no environment."""

    _innerLexerCls = _Command  # noqa: N815
    _venv = re.compile("(?!)")


def _name_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Show the name of a file above its block, which a comment before the block has."""
    block = r"^<!-- file: (\S+) -->\n```(\w+)\n"
    source[0] = re.sub(block, r"```{code-block} \2\n:caption: \1\n\n", source[0], flags=re.M)


def _draw_arrows(app: Sphinx, page: nodes.document) -> None:
    """Draw -> as an arrow in a sentence or a cell, where a line could end between its two signs."""
    for text in list(page.findall(nodes.Text)):
        if "->" in text and not isinstance(
            text.parent, (nodes.literal, nodes.FixedTextElement, nodes.raw)
        ):
            text.parent.replace(text, nodes.Text(text.replace("->", "\N{RIGHTWARDS ARROW}")))


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.add_lexer("console", _Session)
    app.connect("source-read", _name_files)
    app.connect("doctree-read", _draw_arrows)
