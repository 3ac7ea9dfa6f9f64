"""The progress line of a training, and pictures: predicted above true frames of a validation clip."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tqdm import tqdm

from sedtalker.errors import RenderError
from sedtalker.face.rig import Face
from sedtalker.files import atomic_write
from sedtalker.render.soft import SoftRenderer
from sedtalker.training.windows import Example

INSTANTS = 6  # evenly spaced frames of the clip
SIZE = 192  # pixels per face

LOGGED_EVERY = 30.0  # s between two lines of progress in a file

Pose = Callable[[np.ndarray], np.ndarray]  # (n, K) -> vertices (n, V, 3)


class Progress(Callback):
    """One line for the whole run: steps, seconds a step, time left and loss."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Show the line in the first process only."""
        self.line = tqdm(
            desc="training",
            total=trainer.max_steps,
            initial=trainer.global_step,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else LOGGED_EVERY,
            disable=not trainer.is_global_zero,
        )

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Advance by the optimizer's steps; with accumulated gradients some batches have none."""
        if trainer.global_step > self.line.n and not self.line.disable:
            self.line.set_postfix(loss=f"{float(outputs['loss']):.4g}", refresh=False)
            self.line.update(trainer.global_step - self.line.n)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Show the final state."""
        self.line.close()

    def on_exception(self, trainer: lightning.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Close the line, so that the error gets its own."""
        if hasattr(self, "line"):
            self.line.close()


class SamplePictures(Callback):
    """Draws a clip after each validation: FOLDER/step_000250.png, and TensorBoard if that is the logger.

    The upper row shows the prediction, the lower row the truth.
    """

    def __init__(self, face: Face, predicted: Pose, true: Pose, example: Example, folder: Path) -> None:
        """`predicted` and `true` map values (n, K) of the talker and of the store to vertices (n, V, 3)."""
        self.face, self.poses, self.example, self.folder = face, (predicted, true), example, folder

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        """Draw the clip in the first process only."""
        if trainer.is_global_zero:
            values = [self.predict(pl_module), self.example.target.values.numpy()]
            try:
                sheet = np.concatenate([self._row(pose, row) for pose, row in zip(self.poses, values, strict=True)])
            except RenderError as error:  # unusual mesh of a corpus; training continues without pictures
                pl_module.print(f"no picture of a sample: {error}")
                return
            with atomic_write(self.folder / f"step_{trainer.global_step:06d}.png") as temp_path:
                Image.fromarray(sheet).save(temp_path, format="png")
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_image("face", sheet, trainer.global_step, dataformats="HWC")

    @torch.inference_mode()
    def predict(self, module: Any) -> np.ndarray:
        """Predicted coefficients (T, K) of the clip."""
        features, posterior, intensity = (x[None].to(module.device) for x in self.example[:3])
        return module.talker(features, posterior, intensity)[0].float().cpu().numpy()

    def _row(self, pose: Pose, values: np.ndarray) -> np.ndarray:
        """Row of faces (SIZE, INSTANTS x SIZE, 3), sRGB bytes."""
        renderer = SoftRenderer(self.face, SIZE, SIZE)
        instants = np.linspace(0, len(values) - 1, INSTANTS + 2)[1:-1].astype(int)
        return np.concatenate([renderer.frame(vertices) for vertices in pose(values[instants])], axis=1)
