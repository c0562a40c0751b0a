"""Colours and type of the page: a light box for images, paper around it, one green; fonts that gradio brings along."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.utils import colors, sizes
from gradio.themes.utils.fonts import LocalFont

_FILES = Path(__file__).parent / "static"
STYLE, HEAD, ICON = _FILES / "style.css", _FILES / "head.html", _FILES / "icon.png"
_GREEN = colors.Color(
    name="reading room",
    c50="#eef6f4", c100="#dcedea", c200="#b9dbd5", c300="#8cc3ba", c400="#4fa79b", c500="#1d877c",
    c600="#0d7168", c700="#0b5f58", c800="#0a4d48", c900="#093f3b", c950="#06302d",
)  # fmt: skip
_GREY = colors.Color(
    name="film",
    c50="#f6f7f5", c100="#eceeeb", c200="#dce0dc", c300="#c3cac6", c400="#8f9b97", c500="#667370",
    c600="#4b5856", c700="#364240", c800="#232d2c", c900="#161d1d", c950="#0e1313",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """The theme, light and dark; nothing of it is fetched from anywhere."""
    return gr.themes.Base(
        primary_hue=_GREEN,
        secondary_hue=_GREEN,
        neutral_hue=_GREY,
        radius_size=sizes.radius_md,
        spacing_size=sizes.spacing_md,
        text_size=sizes.text_md,
        font=[LocalFont("IBM Plex Sans", weights=(400, 700)), "ui-sans-serif", "system-ui", "sans-serif"],
        font_mono=[LocalFont("IBM Plex Mono", weights=(400, 700)), "ui-monospace", "Menlo", "Consolas", "monospace"],
    ).set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        body_text_color="#17211f",
        body_text_color_dark="#e6ecea",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="#a7b4b1",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="#1b2323",
        block_background_fill="#ffffff",
        block_background_fill_dark="*neutral_900",
        block_border_color="*neutral_200",
        block_border_color_dark="#2c3837",
        block_border_width="1px",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="#c4cecb",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="#c4cecb",
        block_title_text_weight="700",
        button_large_text_weight="700",
        button_small_text_weight="700",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="#a7b4b1",
        block_shadow="none",
        border_color_primary="*neutral_200",
        border_color_primary_dark="#2c3837",
        border_color_accent="*primary_600",
        border_color_accent_dark="*primary_400",
        color_accent="*primary_600",
        color_accent_soft="*primary_50",
        color_accent_soft_dark="#14302d",
        input_background_fill="#ffffff",
        input_background_fill_dark="#111818",
        input_border_color="*neutral_400",
        input_border_color_dark="#566462",
        input_border_color_focus="*primary_600",
        input_border_color_focus_dark="*primary_400",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="#93a19e",
        input_shadow="none",
        link_text_color="*primary_700",
        link_text_color_dark="#7fd0c5",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="#13776d",
        button_primary_background_fill_hover_dark="#0f645c",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#ffffff",
        button_secondary_background_fill="#ffffff",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="#1f2929",
        button_secondary_background_fill_hover_dark="#2a3636",
        button_secondary_border_color="*neutral_400",
        button_secondary_border_color_dark="#566462",
        button_secondary_text_color="#17211f",
        button_secondary_text_color_dark="#e6ecea",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="#13776d",
        checkbox_label_background_fill="#ffffff",
        checkbox_label_background_fill_dark="#1b2323",
        checkbox_label_background_fill_selected="*primary_50",
        checkbox_label_background_fill_selected_dark="#14302d",
        checkbox_label_border_color="*neutral_300",
        checkbox_label_border_color_dark="#3b4948",
        checkbox_label_border_color_selected="*primary_600",
        checkbox_label_border_color_selected_dark="*primary_400",
        checkbox_label_text_color="#17211f",
        checkbox_label_text_color_dark="#e6ecea",
        checkbox_label_text_color_selected="*primary_800",
        checkbox_label_text_color_selected_dark="#b6e3dc",
    )
