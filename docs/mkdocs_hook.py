"""What mkdocs does not do by itself: pages that lie outside docs/, and Markdown as it is written for the repository.

A page stands where it is read in the repository and in no second place.  Its links are relative to that, and lists are
as on GitHub: they need no empty line before them, and what belongs to an item is indented to the item's text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # in the repository → in the site
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docker/README.md": "docker.md",
    "policies/minicode/README.md": "policies/minicode.md",
    "policies/minitools/README.md": "policies/minitools.md",
}
_SOURCES = {page: source for source, page in PAGES.items()}
_LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<path>[^()#\s:]+)(?P<anchor>#[^()\s]*)?\)")
_FENCE = re.compile(r"\s*(```|~~~)")
_ITEM = re.compile(r"\s*([*-]|\d+\.) ")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = _SOURCES.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def rewritten(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["path"]))
        target = PAGES.get(path, path.removeprefix("docs/") if path.startswith("docs/") else "")
        if files.get_file_from_path(target) is not None:
            here = posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")
            return f"[{link['text']}]({here}{link['anchor'] or ''})"
        if not (ROOT / path).exists():
            return link[0]  # a dead link, which mkdocs reports
        if config.repo_url:  # a file or a folder of the repository that is no part of the site
            return f"[{link['text']}]({config.repo_url.rstrip('/')}/blob/HEAD/{path})"
        return link["text"]

    return _LINK.sub(rewritten, with_lists(markdown))


def with_lists(markdown: str) -> str:
    """The same text with lists as Python's Markdown reads them: after an empty line, four columns for each level."""
    lines: list[str] = []
    in_fence, in_list = False, False
    for line in markdown.splitlines():
        if _FENCE.match(line):
            in_fence = not in_fence
        elif not in_fence:
            starts = _ITEM.match(line) is not None
            if starts and not in_list and lines and lines[-1].strip():
                lines.append("")
            in_list = starts or (in_list and (not line.strip() or line.startswith(" ")))
            if in_list:
                line = re.sub(r"^ {2,3}(?=\S)", "    ", line)
        lines.append(line)
    return "\n".join(lines) + "\n"
