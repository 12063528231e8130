"""The model card of an exported policy: README.md with the front matter that the Hugging Face hub reads; a picture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache

from sdpo import __version__
from sdpo.config.paths import locate
from sdpo.evaluation import EvaluationResult
from sdpo.evaluation.bootstrap import LEVEL
from sdpo.report.figures import Figure, display, pass_at_k_figure
from sdpo.report.page import draw_all
from sdpo.report.runs import Run
from sdpo.tracking.metric_names import dataset_title

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_IN_CACHE = re.compile(r"models--(?P<owner>.+?)--(?P<name>.+)")  # a folder of the hub's cache
_LICENCE = ("license", "license_name", "license_link")
PICTURE = "pass_at_k.png"


def write_card(run: Run, step: int, folder: Path) -> None:
    """README.md, and beside it the picture that it shows: pass@k during the run, where that was measured twice or more.

    Raises UserError for an evaluation that cannot be read.
    """
    model_card(run, step).save(folder / "README.md")
    if (figure := _figure(run)) is not None:
        ((_, png),) = draw_all([figure], [run])
        (folder / PICTURE).write_bytes(png)


def model_card(run: Run, step: int) -> ModelCard:
    """The card of the policy that a run had at `step`; whatever it says stands in the run's folder or the base model's.

    Raises UserError for an evaluation that cannot be read.
    """
    hub, about = _base(run.recipe["model"]["path"])
    data = run.recipe.get("data") or {}
    at_step = {name: steps[step] for name, steps in run.results.items() if step in steps}
    front = ModelCardData(
        base_model=hub,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["sdpo", "reinforcement-learning", "self-distillation", run.info.algorithm],
        datasets=data.get("path") if _on_hub(data.get("path")) else None,
        model_name=run.name,
        eval_results=[each for name, result in at_step.items() for each in _eval_results(run, name, result)] or None,
        **{key: about[key] for key in _LICENCE if about.get(key) is not None},
    )
    parts = (_opening(run, step, hub), _numbers(run, step), _curve(run), _data(run), _made(run), _recipe(run))
    return ModelCard(f"---\n{front.to_yaml()}\n---\n\n" + "\n\n".join(filter(None, parts)) + "\n")


def _on_hub(path: Any) -> bool:
    return isinstance(path, str) and bool(_HUB_NAME.fullmatch(path)) and not Path(locate(path)).exists()


def _base(path: str) -> tuple[str | None, dict[str, Any]]:
    """The base model's name on the hub, if it has one, and what its own card says."""
    folder = Path(locate(path))
    if not folder.is_dir():
        cached = try_to_load_from_cache(path, "README.md") if _HUB_NAME.fullmatch(path) else None
        return path, _front_matter(Path(cached)) if isinstance(cached, str) else {}
    cache = next((found for part in folder.parts if (found := _IN_CACHE.fullmatch(part))), None)
    return (f"{cache['owner']}/{cache['name']}" if cache else None), _front_matter(folder / "README.md")


def _front_matter(card: Path) -> dict[str, Any]:
    try:
        return ModelCard.load(card, ignore_metadata_errors=True).data.to_dict() if card.is_file() else {}
    except (OSError, ValueError, yaml.YAMLError):  # whatever somebody wrote there
        return {}


def _eval_results(run: Run, name: str, result: EvaluationResult) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=run.info.recipe,
            dataset_name=f"{run.info.recipe}, {dataset_title(name)}",
            dataset_split=name,
            metric_type=f"pass@{k}",
            metric_name=f"pass@{k}",
            metric_value=round(estimate.value, 4),
        )
        for k, estimate in result.pass_at_k.items()
    ]


# ------------------------------------------------------------------------------------------------------------- sections


def _opening(run: Run, step: int, hub: str | None) -> str:
    rows = [row for row in run.rows if row.get("step", 0) <= step]
    generations = int(max((row.get("generations", 0) for row in rows), default=0))
    path, adapter = run.recipe["model"]["path"], run.recipe["model"].get("adapter")
    what = "all weights" if adapter is None else f"a LoRA adapter of rank {adapter['rank']}"
    base = f"[{hub}](https://huggingface.co/{hub})" if hub else f"the model folder `{Path(path).name}`"
    return (
        f"# {run.name}\n\n{base[0].upper() + base[1:]}, trained with {display(run.info.algorithm)} by sdpo "
        f"{__version__}: {what}, {step} of {run.recipe['run']['steps']} steps, {generations:,} sampled responses."
        "\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer, model = AutoTokenizer.from_pretrained("."), AutoModelForCausalLM.from_pretrained(".")\n```'
    )


def _numbers(run: Run, step: int) -> str:
    lines = []
    for name, steps in run.results.items():
        first, now = steps.get(0), steps.get(step)
        if now is None:
            continue
        for k, estimate in now.pass_at_k.items():
            before = str(first.pass_at_k[k]) if first is not None and k in first.pass_at_k else "–"
            problems = f"{len(now.problems)} × {now.samples // max(1, len(now.problems))}"
            lines.append(f"| {dataset_title(name)} | pass@{k} | {before} | {estimate} | {problems} |")
    if not lines:
        return f"## Numbers\n\nThis policy (step {step}) was not evaluated during the run."
    sampling = ", ".join(f"{key} {value}" for key, value in next(iter(run.results.values()))[step].sampling.items())
    return (
        "## Numbers\n\n| | | before | this policy | problems × samples |\n|---|---|---|---|---|\n"
        + "\n".join(lines)
        + f"\n\nIn brackets: {LEVEL:.0%} bootstrap intervals over problems; one run, seed {run.info.seed}. Sampled "
        f"with {sampling}. Other tasks were not measured."
    )


def _curves(run: Run) -> dict[str, dict[int, EvaluationResult]]:
    """The data sets that were measured at several steps."""
    return {name: steps for name, steps in run.results.items() if len(steps) > 1}


def _figure(run: Run) -> Figure | None:
    return pass_at_k_figure([run], "generations") if _curves(run) else None


def _curve(run: Run) -> str:
    if not (sets := _curves(run)):
        return ""
    generations = {row["step"]: int(row["generations"]) for row in run.rows if "generations" in row}
    lines = [
        f"| step | responses | {' | '.join(dataset_title(name) for name in sets)} |",
        "|---" * (2 + len(sets)) + "|",
    ]
    for step in sorted({step for steps in sets.values() for step in steps}):
        found = [str(steps[step].pass_at_k[1]) if step in steps else "–" for steps in sets.values()]
        lines.append(f"| {step} | {generations.get(step, 0):,} | {' | '.join(found)} |")
    picture = f"![pass@k against sampled responses]({PICTURE})\n\n" if _figure(run) is not None else ""
    return f"## Curve\n\n{picture}pass@1 during the run.\n\n" + "\n".join(lines)


def _data(run: Run) -> str:
    data = run.recipe.get("data") or {}
    where = data.get("path") or data.get("source") or run.recipe.get("environment", {}).get("kind")
    shown = where if _on_hub(where) or not data.get("path") else Path(str(where)).name
    lines = [f"Tasks: `{shown}`. Checksums (XXH3, 128 bits) when the run began:", "", "| | |", "|---|---|"]
    lines += [f"| `{name}` | {checksum} |" for name, checksum in sorted(run.inputs.items())]
    return "## Data\n\n" + "\n".join(lines if run.inputs else lines[:1])


def _made(run: Run) -> str:
    info = run.info
    lines = [f"* `{info.command}`, commit {info.commit}, begun {info.created[:10]}", f"* {info.hardware}"]
    lines += [f"* changed at step {c['step']}: {c['option']} from {c['old']} to {c['new']}" for c in info.changes]
    return "## How it was made\n\n" + "\n".join(lines)


def _recipe(run: Run) -> str:
    text = yaml.safe_dump(run.recipe, sort_keys=False, allow_unicode=True, width=120)
    return f"## Recipe\n\nEvery option as it was resolved.\n\n<details>\n\n```yaml\n{text}```\n\n</details>"
