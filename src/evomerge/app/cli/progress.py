"""A job while it runs: a live bar on a terminal, a line a generation elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from evomerge.app.cli.render import number
from evomerge.app.client import Json

# What a running job does when it does not search, by the name that its progress gives it.
BESIDE_THE_SEARCH = {
    "loading": "loading base and pool",
    "held_out": "proving on held-out data",
    "storing": "writing the merged model",
}


class JobProgress:
    """Shows a job each time that it changes. Use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.completed:.0f}/{task.total:.0f} evaluations"),
            TextColumn("best loss {task.fields[best]}"),
            TextColumn("{task.fields[left]}"),
            console=console,
            expand=True,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("queued", total=1, best="-", left="")
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
        self._bar.update(
            self._task,
            description=said,
            completed=done,
            total=total,
            best=best,
            left=time_left(progress.get("eta_seconds")),
        )
        if not self._console.is_terminal and said != self._said:
            self._said = said
            counts = f": {done} of {total} evaluations, best loss {best}" if done else ""
            self._console.print(f"{said}{counts}", highlight=False, markup=False)


def headline(job: Json) -> str:
    """Where a job is: its status, and the stage and generation while it searches."""
    progress = job["progress"]
    stage = progress.get("stage")
    if job["status"] != "running" or stage is None:
        return str(job["status"])
    if stage in BESIDE_THE_SEARCH:
        return BESIDE_THE_SEARCH[stage]
    return f"{stage}, generation {progress['generation']}"


def time_left(seconds: float | None) -> str:
    """Time left as 1:02:03, or nothing while it cannot be foreseen."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} left"
