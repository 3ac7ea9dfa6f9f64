"""The range of a diarizer's intensities: plain voices show nothing, strongly acted ones a strong expression."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sedtalker.emotion.diarizer import Diarizer, DiarizerConfig, load_diarizer, save_diarizer
from sedtalker.recipes.calibrate_intensity import Voice, fit_range, plot_range, show_levels, write_range

LEVELS = {0.0: 0.05, 1 / 3: 0.35, 2 / 3: 0.5, 1.0: 0.7}  # median raw intensity of each acted level


@pytest.fixture
def voices() -> list[Voice]:
    rng = np.random.default_rng(0)
    return [
        Voice("corpus", level, np.clip(rng.normal(middle + rng.normal(0, 0.06), 0.03, 50), 0, 1))
        for level, middle in LEVELS.items()
        for _ in range(20)
    ]


def test_the_range_brings_each_level_near_its_goal(voices):
    low, high = fit_range(voices)
    assert 0 < low < high < 1
    shown = show_levels(voices, (low, high))
    assert np.quantile(shown["corpus", 0.0], 0.9) < 0.05
    for level in (1 / 3, 2 / 3, 1.0):
        assert abs(np.median(shown["corpus", level]) - level) < 0.12


def test_the_plot_is_a_picture(voices, tmp_path):
    pytest.importorskip("matplotlib")
    plot_range(voices, (0.2, 0.7), tmp_path / "range.webp")
    picture = np.asarray(Image.open(tmp_path / "range.webp"))
    assert picture.shape[2] == 3 and picture.std() > 10


def test_the_range_is_written_to_the_configuration_alone(tmp_path):
    save_diarizer(Diarizer(DiarizerConfig(layers=2, feature_width=8, width=8, hidden=4)), tmp_path)
    weights = (tmp_path / "model.safetensors").read_bytes()
    write_range(tmp_path, (0.1, 0.7))
    assert load_diarizer(tmp_path).config.intensity_range == (0.1, 0.7)
    assert (tmp_path / "model.safetensors").read_bytes() == weights
