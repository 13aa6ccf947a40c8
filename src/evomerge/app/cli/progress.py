"""A job while it runs: a live bar on a terminal, a line a generation elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Column

from evomerge.app.cli.render import number
from evomerge.app.client import Json

# What a running job does when it does not search, by the name that its progress gives it.
BESIDE_THE_SEARCH = {
    "loading": "loading base and pool",
    "asking": "asking the experts",
    "held_out": "proving on held-out data",
    "storing": "writing the merged model",
    "reading": "reading documents",
    "tokenizing": "making tokens of documents",
    "branching": "choosing where to start",
    "training": "training",
    "evaluating": "reading development documents",
    "saving": "writing the checkpoint",
    "averaging": "averaging",
}
# What is made ready, where it is not a base and a pool of weights, by the job's space.
LOADING = {"output": "reading the examples", "remote": "reaching the provider"}
# Narrower terminals get the bare numbers, so that there is room for a bar, all on one line.
WIDE = 100


class JobProgress:
    """Shows a job each time that it changes. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            _text("{task.description}"),
            BarColumn(bar_width=None),
            _text("{task.fields[counts]}"),
            _text("{task.fields[best]}"),
            _text("{task.fields[left]}"),
            console=console,
            expand=True,
            transient=True,
            disable=not console.is_terminal,
        )
        wide = console.width >= WIDE
        self._counts = "{}/{} evaluations" if wide else "{}/{}"
        self._best = "best loss {}" if wide else "best {}"
        self._counted = False
        self._task = self._bar.add_task("queued", total=None, counts="", best="", left="")
        self._said = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, job: Json) -> None:
        """Show the job as it is now."""
        progress = job["progress"]
        done, total = progress.get("evaluations", 0), progress.get("planned_evaluations", 1)
        best = number(progress.get("best_loss"))
        said = headline(job)
        if searches(job):
            counts = self._counts.format(done, total)
            left = time_left(progress.get("eta_seconds"))
            self._draw(said, done, total, counts, self._best.format(best), left)
        elif trains(job):
            steps, planned = progress["step"], progress["planned_steps"]
            loss = f"loss {number(progress['loss'])}"
            left = time_left(progress.get("eta_seconds"))
            self._draw(said, steps, planned, f"{steps}/{planned} steps", loss, left)
        elif "planned_domains" in progress:
            read, planned = progress["domains"], progress["planned_domains"]
            self._draw(said, read, planned, f"{read}/{planned} domains", "", "")
        elif "planned_answers" in progress:
            answers, wanted = progress["answers"], progress["planned_answers"]
            self._draw(said, answers, wanted, f"{answers}/{wanted} answers", "", "")
        else:
            self._draw(said, 0, None, "", self._best.format(best) if done else "", "")
        if not self._console.is_terminal and said != self._said:
            self._said = said
            counts = f": {done} of {total} evaluations, best loss {best}" if done else ""
            self._console.print(f"{said}{counts}", highlight=False, markup=False)

    def _draw(
        self, said: str, done: int, total: int | None, counts: str, best: str, left: str
    ) -> None:
        """Show it at once; without a total the bar only moves."""
        counted = total is not None
        if counted == self._counted:
            self._bar.update(
                self._task,
                description=said,
                completed=done,
                total=total,
                counts=counts,
                best=best,
                left=left,
                refresh=True,
            )
            return
        # A task that once had a total cannot lose it, and one that is full no longer moves.
        self._counted = counted
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(
            said, completed=done, total=total, counts=counts, best=best, left=left
        )
        self._bar.refresh()


def _text(format: str) -> TextColumn:
    """A part that stays on its line."""
    return TextColumn(format, table_column=Column(no_wrap=True, overflow="ellipsis"))


def searches(job: Json) -> bool:
    """Whether a job is scoring candidates, so that what is left can be counted."""
    stage = job["progress"].get("stage")
    if job.get("object") == "forest_job":
        return False
    return job["status"] == "running" and stage is not None and stage not in BESIDE_THE_SEARCH


def trains(job: Json) -> bool:
    """Whether a job is at its training steps."""
    running: bool = job["status"] == "running"
    return running and job["progress"].get("stage") == "training"


def headline(job: Json) -> str:
    """Where a job is: its status, and the stage and generation while it searches."""
    progress = job["progress"]
    if searches(job):
        return f"{progress['stage']}, generation {progress['generation']}"
    said = str(job["status"])
    space = job.get("spec", {}).get("space")
    if said == "running" and progress.get("stage") == "loading" and space in LOADING:
        return LOADING[space]
    return BESIDE_THE_SEARCH.get(progress.get("stage"), said) if said == "running" else said


def time_left(seconds: float | None) -> str:
    """Time left as 1:02:03, or nothing while it cannot be foreseen."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left"
