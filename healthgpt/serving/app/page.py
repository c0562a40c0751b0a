"""The page: what stands where. What happens when is in image_events.py and talk_events.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from healthgpt.serving.app import markup
from healthgpt.serving.app.decoding import MOST_TOKENS
from healthgpt.serving.app.examples import EXAMPLES

AUTOMATIC, ANALYZE, GENERATE = "Automatic", "Analyze", "Generate"
MODES = (AUTOMATIC, ANALYZE, GENERATE)
MODEL_VIEW, SOURCE_VIEW = "What the model sees", "Source pixels"
_PICK = """
element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-example]');
  if (card) trigger('select', {index: Number(card.dataset.example)});
});
"""


@dataclass(frozen=True, kw_only=True)
class ImagePart:
    """The image: viewer, how it is looked at, where it comes from.

    Attributes:
        address, fetch: None where images of the web are off.
    """

    film: Any
    controls: Any
    window: Any
    plane: Any
    slice: Any
    view: Any
    upload: Any
    remove: Any
    address: Any
    fetch: Any
    examples: Any


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Decoding settings, in the order of `decoding.Chosen`'s fields."""

    all: list[Any]


@dataclass(frozen=True, kw_only=True)
class TalkPart:
    """The conversation: past turns, the one under way, and what the next one is to be."""

    mode: Any
    model: Any
    log: Any
    live: Any
    said: Any
    instruction: Any
    send: Any
    stop: Any
    clear: Any
    controls: Controls


@dataclass(frozen=True, kw_only=True)
class ComparePart:
    """Two settings beside each other."""

    instruction: Any
    mode: Any
    run: Any
    stop: Any
    models: tuple[Any, Any]
    controls: tuple[Controls, Controls]
    results: tuple[Any, Any]
    verdict: Any


@dataclass(frozen=True, kw_only=True)
class ReportPart:
    tab: Any
    sheet: Any


@dataclass(frozen=True, kw_only=True)
class Page:
    """All components that something happens to."""

    notice: Any
    image: ImagePart
    talk: TalkPart
    compare: ComparePart
    report: ReportPart


def lay_out(models: Sequence[str], with_addresses: bool) -> Page:
    """Makes the components, inside of a `gr.Blocks`."""
    _html(markup.header(models), elem_id="top")
    notice = _html(markup.notice(), elem_id="notice")
    examples = _html(markup.gallery(EXAMPLES), elem_id="examples", js_on_load=_PICK)
    with gr.Tabs(elem_id="tabs"):
        with gr.Tab("Workspace", id="workspace"), gr.Row(elem_id="workspace"):
            with gr.Column(elem_id="image-part", min_width=320):
                image = _image_part(with_addresses, examples)
            with gr.Column(elem_id="talk-part", min_width=320):
                talk = _talk_part(models)
        with gr.Tab("Compare", id="compare"):
            compare = _compare_part(models)
        with gr.Tab("Report", id="report") as tab:
            report = ReportPart(tab=tab, sheet=_html(elem_id="report"))
    _html(f'<footer class="hg-footer"><p>{markup.DISCLAIMER}</p></footer>', elem_id="bottom")
    return Page(notice=notice, image=image, talk=talk, compare=compare, report=report)


def _html(value: str = "", **settings: Any) -> Any:
    """A piece of the page, in the page's own style."""
    return gr.HTML(value, apply_default_css=False, **settings)


def _image_part(with_addresses: bool, examples: Any) -> ImagePart:
    with gr.Column(elem_id="image-box"):
        film = _html(markup.no_film(), elem_id="film")
        upload = gr.File(label="Image, DICOM series or volume", file_count="multiple", elem_id="upload")
    with gr.Row(elem_id="sources"):
        _html(markup.source_buttons(), elem_id="source-buttons")
        remove = gr.Button("Remove image", size="sm", visible=False, elem_id="remove")
    with gr.Group(visible=False, elem_id="looking") as controls:
        view = gr.Radio([MODEL_VIEW, SOURCE_VIEW], value=MODEL_VIEW, label="Show")
        window = gr.Dropdown(
            [("Automatic", "auto")],
            value="auto",
            label="Window",
            info="or width/level of your own, such as 350/40",
            allow_custom_value=True,
            filterable=True,
            elem_id="window",
            elem_classes="hg-select",
        )
        plane = gr.Radio([], label="Plane", elem_id="plane")
        place = gr.Slider(1, 2, value=1, step=1, label="Slice", elem_id="slice")
    address = fetch = None
    if with_addresses:
        with gr.Row():
            address = gr.Textbox(label="Address of an image", placeholder="https://", scale=4)
            fetch = gr.Button("Fetch", size="sm", scale=1)
    return ImagePart(
        film=film, controls=controls, window=window, plane=plane, slice=place, view=view, upload=upload, remove=remove,
        address=address, fetch=fetch, examples=examples,
    )  # fmt: skip


def _talk_part(models: Sequence[str]) -> TalkPart:
    with gr.Row(elem_id="choices"):
        mode = gr.Radio(
            list(MODES),
            value=AUTOMATIC,
            label="Task",
            info="Automatic goes by the words of the instruction",
            scale=3,
            elem_id="mode",
        )
        model = gr.Dropdown(
            list(models), value=models[0], label="Model", scale=1, elem_id="model", elem_classes="hg-select"
        )
    with gr.Column(elem_id="talk-scroll"):
        log = _html(markup.empty_conversation(), elem_id="log")
        live = _html(elem_id="live")
    said = _html(markup.said(), elem_id="said")
    with gr.Group(elem_id="composer", elem_classes="hg-composer"):
        instruction = gr.Textbox(
            label="Question or instruction",
            placeholder="What abnormality is seen in this image?",
            lines=2,
            max_lines=8,
            elem_id="instruction",
        )
        with gr.Row(elem_classes="hg-buttons"):
            send = gr.Button("Send", variant="primary", elem_id="send")
            stop = gr.Button("Stop", variant="stop", visible=False, elem_id="stop")
            clear = gr.Button("New conversation", elem_id="clear")
    with gr.Accordion("Decoding", open=False, elem_id="decoding"):
        controls = _controls()
    return TalkPart(
        mode=mode, model=model, log=log, live=live, said=said, instruction=instruction, send=send, stop=stop,
        clear=clear, controls=controls,
    )  # fmt: skip


def _controls() -> Controls:
    """The decoding settings; the values that stand there first change nothing."""
    with gr.Row():
        sample = gr.Checkbox(label="Sample", info="instead of taking the likeliest token")
        temperature = gr.Slider(0.1, 2, value=1, step=0.05, label="Temperature", info="with sampling")
        top_p = gr.Slider(0.05, 1, value=1, step=0.05, label="Top-p", info="with sampling")
    with gr.Row():
        beams = gr.Slider(1, 8, value=1, step=1, label="Beams", info="more than one: no streaming")
        penalty = gr.Slider(0, 2, value=0, step=0.05, label="Repetition penalty", info="0: the model's own")
    with gr.Row():
        longest = gr.Slider(1, MOST_TOKENS, value=MOST_TOKENS, step=1, label="Longest answer", info="in tokens")
        seed = gr.Textbox(label="Seed", info="with sampling", placeholder="a fresh one each time", max_lines=1)
    return Controls(all=[sample, temperature, top_p, beams, penalty, longest, seed])


def _compare_part(models: Sequence[str]) -> ComparePart:
    _html('<p class="hg-lead">The same instruction with two settings, about the image in the workspace.</p>')
    with gr.Group(elem_classes="hg-composer"):
        with gr.Row(elem_id="compare-top"):
            instruction = gr.Textbox(
                label="Question or instruction",
                placeholder="Describe this image.",
                lines=2,
                scale=3,
                elem_id="compare-text",
            )
            mode = gr.Radio(list(MODES), value=AUTOMATIC, label="Task", scale=2)
        with gr.Row(elem_classes="hg-buttons"):
            run = gr.Button("Run both", variant="primary", elem_id="compare-run")
            stop = gr.Button("Stop", variant="stop", visible=False, elem_id="compare-stop")
    chosen, controls, results = [], [], []
    with gr.Row():
        for name in "AB":
            with gr.Column(min_width=300):
                chosen.append(
                    gr.Dropdown(list(models), value=models[0], label=f"Model {name}", elem_classes="hg-select")
                )
                with gr.Accordion(f"Decoding {name}", open=False):
                    controls.append(_controls())
    with gr.Row(elem_id="compare-results"):
        for name in "AB":
            with gr.Column(min_width=300):
                results.append(_html(elem_id=f"result-{name.lower()}"))
    verdict = _html(elem_id="verdict")
    return ComparePart(
        instruction=instruction,
        mode=mode,
        run=run,
        stop=stop,
        models=(chosen[0], chosen[1]),
        controls=(controls[0], controls[1]),
        results=(results[0], results[1]),
        verdict=verdict,
    )
