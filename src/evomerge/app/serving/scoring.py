"""A merge of scored text: experts echo a text, and the probabilities of its tokens are mixed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from evomerge.app.outputs import StoredOutput
from evomerge.app.serving.errors import BadParameterError, UnsupportedParameterError
from evomerge.app.serving.panel import Heard, Panel
from evomerge.app.serving.prompts import text_of
from evomerge.app.serving.protocol import Ability, Part, Request, Run, nothing
from evomerge.connectors.local.engine_values import Ended, Piece, Scored, TokenScore, TokenText
from evomerge.connectors.output.errors import TokenisationError
from evomerge.connectors.output.fused import Mixed, mixed
from evomerge.connectors.registry import Asker
from evomerge.evaluation.example import Example

# What lm-eval asks for beside the scores, to drop it.
_MOST_TOKENS = 1
_CAN = (
    "this merge mixes token probabilities and writes no answers; it scores texts: POST "
    "/v1/completions with echo=true, logprobs=0 and max_tokens=0"
)


class ScoringModel:
    """A `ServedModel` over experts' APIs that scores the texts it is given, and writes none.

    Only the experts that the merge keeps are asked, all at once, as its search asked them about
    raw text. One that fails is left out and the others' weights stand in.

    Args:
        stored: the merge, its task and its experts.
        asker: asks them.
    """

    abilities: frozenset[Ability] = frozenset({"logprobs", "echo"})

    def __init__(self, stored: StoredOutput, asker: Asker) -> None:
        self._panel = Panel(stored, asker)

    async def start(self, request: Request) -> Run:
        """See `ServedModel.start`. Experts are asked when the run's parts are."""
        _refuse(request)
        texts = tuple(map(_text, request.prompts))
        run = Run(texts, 0, nothing())
        run.parts = self._parts(run, texts, bool(request.max_tokens))
        return run

    async def _parts(self, run: Run, texts: Sequence[str], one_more: bool) -> AsyncGenerator[Part]:
        run.report.update(self._panel.about())
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._panel.ask(Example("", text))) for text in texts]
        for index, (text, task) in enumerate(zip(texts, asking, strict=True)):
            heard = task.result()
            found = await self._mixed(index, text, heard)
            self._panel.tell(run.report, self._panel.failed(heard, found.silent))
            answers = [answer for one in heard for answer in one.answers if answer is not None]
            run.prompt_tokens += sum(each.input_tokens for each in answers)
            yield Part(index, Scored(_token_scores(text, found), characters=len(text)))
            if one_more:
                # Clients that ask for one token beside the scores drop what stands last.
                yield Part(index, Piece("", (TokenScore(TokenText("", b""), None),)))
            yield Part(index, Ended("length", sum(each.output_tokens for each in answers)))

    async def _mixed(self, index: int, text: str, heard: Sequence[Heard]) -> Mixed:
        """
        Raises:
            ModelUnavailableError: nobody scored it.
            BadParameterError: experts cut it into different tokens.
        """
        given = [one.answers for one in heard]
        try:
            found = await asyncio.to_thread(mixed, self._panel.merge, text, given)
        except TokenisationError as error:
            raise BadParameterError(
                f"prompt: expert {error.expert!r} cuts text {index} into other tokens than "
                f"{error.first!r}: only experts of one tokenizer can be mixed token by token",
                "prompt",
            ) from error
        if not found.tokens:
            raise self._panel.nobody(self._panel.failed(heard, found.silent))
        return found


def _refuse(request: Request) -> None:
    """What is not the scoring of texts."""
    if request.choices:
        raise UnsupportedParameterError("choices", "this merge scores texts; it does not choose")
    if request.samples > 1:
        raise UnsupportedParameterError("n", "a text has one score")
    for param, wrong in (
        ("messages", bool(request.messages)),
        ("echo", not request.echo),
        ("logprobs", request.alternatives is None),
        ("max_tokens", request.max_tokens is None or request.max_tokens > _MOST_TOKENS),
    ):
        if wrong:
            raise BadParameterError(f"{param}: {_CAN}", param)


def _text(prompt: str | tuple[int, ...]) -> str:
    text = text_of(prompt)
    if not text:
        raise BadParameterError("prompt: an empty text has no tokens to score", "prompt")
    return text


def _token_scores(text: str, found: Mixed) -> tuple[TokenScore, ...]:
    """With offsets; a piece of a character, which the text does not hold, takes no room."""
    scores, at = [], 0
    for token, logprob in zip(found.tokens, found.log_probs, strict=True):
        place = text.find(token, at)
        offset = at if place < 0 else place
        scores.append(TokenScore(TokenText(token, token.encode()), logprob, offset=offset))
        at = offset if place < 0 else place + len(token)
    return tuple(scores)
