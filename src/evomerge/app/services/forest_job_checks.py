"""What a job over a forest may ask for, checked before it is queued."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from evomerge.app.db.models import Job
from evomerge.app.errors import ConflictError, InvalidRequestError
from evomerge.app.schemas.forest_inputs import CorpusInput, ForestInput
from evomerge.app.schemas.forest_specs import (
    AnyForestSpec,
    Architecture,
    AverageSpec,
    BranchTrainSpec,
    ClusterSpec,
    Shares,
    TrainSeedSpec,
)
from evomerge.app.schemas.forest_specs import Recipe as RecipeSpec
from evomerge.connectors.local.training.errors import RecipeError
from evomerge.connectors.local.training.recipe import Recipe
from evomerge.evaluation.corpus import ShareError
from evomerge.evaluation.corpus import Shares as CorpusShares
from evomerge.merging.forest.averages import checked_weights
from evomerge.merging.forest.errors import WeightsError

MEASURED = ("auto", "nearest", "average")
STARTS = (*MEASURED, "seed")
_NEARLY = 1e-9


def recipe_of(spec: RecipeSpec) -> Recipe:
    """The recipe of a training.

    Raises:
        InvalidRequestError: a field does not fit another; names it.
    """
    try:
        return Recipe(**spec.model_dump())
    except (RecipeError, ShareError) as error:
        raise InvalidRequestError(f"recipe.{error}", param=f"recipe.{error.field}") from error


def check_training(spec: AnyForestSpec) -> None:
    """Refuse a recipe or a budget that gives no step, and processes without a row.

    Raises:
        InvalidRequestError: names the field.
    """
    if not isinstance(spec, TrainSeedSpec | BranchTrainSpec):
        return
    recipe, tokens = recipe_of(spec.recipe), spec.budget.tokens
    if tokens is not None and tokens < recipe.batch_tokens:
        raise InvalidRequestError(
            f"budget.tokens={tokens}: one step takes {recipe.batch_tokens}", param="budget.tokens"
        )
    if (spec.processes or 1) > recipe.batch_blocks:
        raise InvalidRequestError(
            f"processes={spec.processes}: recipe.batch_blocks={recipe.batch_blocks} gives them "
            "fewer rows to share",
            param="processes",
        )


def check_branch(spec: BranchTrainSpec, elm: str, forest: ForestInput, most: int) -> None:
    """Refuse a branch that cannot start, or whose ELM could not join the forest.

    Raises:
        InvalidRequestError, ConflictError: names the field.
    """
    names = [member.name for member in forest.elms]
    if spec.start not in (*STARTS, *names):
        raise InvalidRequestError(
            f"start={spec.start!r}: must be one of {', '.join(STARTS)}, or an ELM of "
            f"{forest.name!r}: {', '.join(map(repr, names)) or 'it has none yet'}",
            param="start",
            code="not_found",
        )
    if spec.start in MEASURED and names and not spec.recipe.dev_share:
        raise InvalidRequestError(
            f"recipe.dev_share=0: start={spec.start!r} is chosen on development documents",
            param="recipe.dev_share",
        )
    if elm in names:
        raise ConflictError(
            f"elm={elm!r}: forest {forest.name!r} has an ELM of this name",
            param="elm",
            code="name_taken",
        )
    if elm in STARTS:
        raise InvalidRequestError(f"elm={elm!r}: is the name of a start", param="elm")
    if len(names) + 1 > most:
        raise InvalidRequestError(
            f"forest: {forest.name!r} has {len(names)} ELMs, the service takes {most}",
            param="forest",
            code="too_many",
        )


def check_clusters(spec: ClusterSpec, corpora: Sequence[CorpusInput]) -> None:
    """Refuse more clusters than documents.

    Raises:
        InvalidRequestError: there are more, or the shares leave no document; names the field.
    """
    _checked_shares(spec.shares)
    documents = sum(corpus.documents for corpus in corpora)
    if spec.clusters > documents:
        raise InvalidRequestError(
            f"clusters={spec.clusters}: there are {documents} documents",
            param="clusters",
            code="too_few_documents",
        )


def check_average(spec: AverageSpec, forest: ForestInput) -> None:
    """Refuse weights that are no distribution over the ELMs, or that nothing could be known of.

    Raises:
        InvalidRequestError: names the field.
    """
    names = [member.name for member in forest.elms]
    if isinstance(spec.weights, dict):
        for name in spec.weights:
            if name not in names:
                raise InvalidRequestError(
                    f"weights.{name}: forest {forest.name!r} has no ELM {name!r}; it has "
                    f"{', '.join(map(repr, names))}",
                    param=f"weights.{name}",
                    code="not_found",
                )
        try:
            checked_weights([spec.weights.get(name, 0.0) for name in names], None, "weights")
        except WeightsError as error:
            raise InvalidRequestError(str(error), param="weights") from error
    elif spec.weights != "uniform" and spec.corpus is None and _has_no_prior(forest):
        raise InvalidRequestError(
            f"corpus: weights={spec.weights!r} need development documents, for forest "
            f"{forest.name!r} has no prior of its own",
            param="corpus",
            code="missing",
        )
    if spec.corpus is not None and not spec.shares.dev_share:
        raise InvalidRequestError(
            "shares.dev_share=0: there is no development document to read",
            param="shares.dev_share",
        )


def check_shares(shares: Shares, trained: Iterable[Job]) -> None:
    """Refuse to choose by, or to test on, documents that an ELM here was trained on.

    A document's content gives it a place in [0, 1): test documents come first, then those of
    development, and training has the rest. So what tests here must have tested there, and what
    chooses here must end where training began.

    Raises:
        InvalidRequestError: it does not; names the shares and the job.
    """
    _checked_shares(shares)
    for job in trained:
        kept_test, kept_dev = (
            (job.spec.get("recipe") or job.spec["shares"])[f"{part}_share"]
            for part in ("test", "dev")
        )
        reach = shares.test_share + shares.dev_share
        if reach > kept_test + kept_dev + _NEARLY or shares.test_share > kept_test + _NEARLY:
            raise InvalidRequestError(
                f"shares: dev_share={shares.dev_share} and test_share={shares.test_share} reach "
                f"into the documents that job {job.id} trained or chose by; it kept "
                f"dev_share={kept_dev} and test_share={kept_test}",
                param="shares",
                code="trained_on",
            )


def seed_parameters(architecture: Architecture, tokenizer: Path | None) -> int:
    """Weights of the seed to be; embeddings are tied.

    Raises:
        InvalidRequestError: the folder has no tokenizer.json that can be read.
    """
    words = architecture.vocabulary if tokenizer is None else _vocabulary(tokenizer)
    hidden, heads = architecture.hidden, architecture.heads
    keys = hidden // heads * architecture.kv_heads
    layer = 2 * hidden * hidden + 2 * hidden * keys
    layer += 3 * hidden * architecture.intermediate + 2 * hidden
    return words * hidden + architecture.layers * layer + hidden


def _checked_shares(shares: Shares) -> None:
    try:
        CorpusShares(dev=shares.dev_share, test=shares.test_share)
    except ShareError as error:
        raise InvalidRequestError(f"shares.{error}", param=f"shares.{error.field}") from error


def _has_no_prior(forest: ForestInput) -> bool:
    return forest.ensemble.get("prior") is None


def _vocabulary(folder: Path) -> int:
    """Tokens of a tokenizer.json."""
    param = "architecture.tokenizer"
    try:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        words = content["model"]["vocab"]
        # A unigram's vocabulary lists pairs, others map words to numbers.
        known = {word[0] for word in words} if isinstance(words, list) else set(words)
        return len(known | {added["content"] for added in content.get("added_tokens", [])})
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise InvalidRequestError(
            f"{param}: has no tokenizer.json that can be read", param=param
        ) from error
