"""`sdpo results`: make the declared studies, or some of them, and the page that shows what came out."""

from __future__ import annotations

from pathlib import Path

from sdpo.errors import UserError


def run(options) -> int:
    from sdpo.evidence.layout import Layout
    from sdpo.evidence.session import Session
    from sdpo.evidence.studies import load_studies

    layout = Layout(Path(options.data), Path(options.runs))
    session = Session(load_studies(*([Path(options.studies)] if options.studies else [])), layout, options.retry)
    words = options.parts or session.words
    if unknown := [word for word in words if word.split("/")[0] not in session.words + session.actions]:
        raise UserError(
            f"There is no part {', '.join(unknown)}. Parts: {', '.join(session.words)}; also "
            f"{', '.join(session.actions)}, and single runs as <part>/<run>."
        )
    if options.dry_run:
        session.show_commands(words)
        return 0
    return session.make(words)
