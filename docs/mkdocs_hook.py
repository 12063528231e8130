"""What mkdocs does not do by itself: pages that lie outside docs/, and links as they are written for the repository.

A page stands where it is read in the repository and in no second place; its links are relative to that.
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

    return _LINK.sub(rewritten, markdown)
