"""How to use an exported model as it was measured: sentences for the model card and the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator

from autolambda.coefficients import EXTRAPOLATES
from autolambda.driver.models import Models
from autolambda.engines.generation_config import to_send
from autolambda.engines.vllm.arguments import rope_factors
from autolambda.export.provenance import Provenance
from autolambda.merging.modules import why_unloadable
from autolambda.schedule import Schedule


def export_notes(models: Models, schedule: Schedule | None, measurement: Provenance | None) -> tuple[str, ...]:
    """Returns what the user of an export should know.

    These are notes on the pair and on a schedule that extrapolates, what no file holds, and what was not checked.
    """
    measured = (*_greedy(models), *_about_measured(measurement)) if measurement else _unloadable(models)
    beyond = (EXTRAPOLATES,) if schedule and schedule.extrapolates else ()
    return (*models.warnings, *beyond, *_requests(models), *_clock(models, measurement), *_rope(models), *measured)


def sampling_section(models: Models, measurement: Provenance | None) -> Iterator[str]:
    """Yields the lines of the card's section on sampling."""
    sampling = models.sampling
    tokenizer = models.chat.tokenizer
    ends = [f"{id} (`{_code(str(tokenizer.decode([id])))}`)" for id in sampling.end_ids or ()]
    yield f"Sampling: {sampling.in_words}."
    yield f"A response ends at the tokens {', '.join(ends) or '(none)'}" + (
        f", or at the texts {', '.join(f'`{_code(repr(text))}`' for text in sampling.stop)}." if sampling.stop else "."
    )
    yield ""
    for sentence in _requests(models):
        what, _, settings = sentence.partition(": ")  # some settings were written by the parents' authors
        yield f"{what}: `{_code(settings)}`."
        yield ""
    for sentence in (*_greedy(models), *_clock(models, measurement), *_rope(models)):
        yield f"{sentence[0].upper()}{sentence[1:]}."
        yield ""


def notes_section(models: Models) -> Iterator[str]:
    """Yields the lines of the card's section with the notes on the pair, if there are any."""
    if models.warnings:
        yield "## Notes on the pair"
        yield ""
        for note in models.warnings:
            yield f"- `{_code(note)}`"
        yield ""


def _requests(models: Models) -> Iterator[str]:
    """Yields a sentence on the settings that must come with each request."""
    sent = to_send(models.sampling, models.chat.tokenizer)
    if models.settings.chat_template_kwargs:
        sent.append(f"chat_template_kwargs {json.dumps(models.settings.chat_template_kwargs)}")
    if sent:
        yield f"generation_config.json cannot hold these settings, so send them with each request: {', '.join(sent)}"


def _greedy(models: Models) -> Iterator[str]:
    if models.sampling.temperature == 0:
        yield "responses are greedy, and vLLM does not read do_sample, so send it temperature 0 with each request"


def _clock(models: Models, measurement: Provenance | None) -> Iterator[str]:
    if not models.reads_clock:
        return
    moment = measurement.identity.get("models.clock") if measurement else None
    then = f"; the measured prompts were rendered for {moment.replace('T', ' ')}" if moment else ""
    yield f"the chat template asks for the date, so a server's prompts change with it{then}"


def _rope(models: Models) -> Iterator[str]:
    """Yields a sentence if servers turn the positions of longer sequences in different ways."""
    if rope_factors(models.pair, {}, context=models.context) is not None:
        yield (
            "the model has longrope: past its original context, vLLM chooses the factors by max_model_len, and "
            "transformers 5.19 loses the context of a Phi-3 model unless generate gets use_cache=False"
        )


def _about_measured(measurement: Provenance) -> Iterator[str]:
    """Yields a sentence if a cap is to be used, and one if the weights cannot be compared with the measured ones."""
    if measurement.cap:
        yield (
            f"with a cap of {measurement.cap.capped.tokens:,} tokens on its thinking, this merge is shown to be better "
            "than the pick without one; README.md says how a server is told the cap"
        )
    if measurement.weights is None:
        yield f"the exported weights were not compared with those in the engine: {measurement.why_uncompared}"


def _unloadable(models: Models) -> tuple[str, ...]:
    """Returns a sentence if transformers could not load a merge that no engine has held."""
    thinking = models.pair.thinking
    reason = why_unloadable(thinking)
    return (f"a server may not load the export: '{thinking.name}': {reason}",) if reason else ()


def _code(text: str) -> str:
    """Makes a text safe inside backticks: one line, no backticks."""
    return "".join(each if each.isprintable() else " " for each in text).replace("`", "'")[:500]
