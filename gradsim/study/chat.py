"""Section `chat` of a study file: the text of a conversation, and the tokens that the loss covers."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Discriminator, Field, Tag

from gradsim.errors import StudyError
from gradsim.study.section import Section, StudyPath

TemplateName = Literal["tulu", "model"]
LossOn = Literal["last_answer", "all_answers", "everything"]
Reduction = Literal["mean", "sum"]
Truncation = Literal["left", "right", "none"]


def _jinja_file(path: Path) -> Path:
    if path.suffix != ".jinja":
        raise ValueError(f"chat.template: '{path.name}' is none of tulu, model and a .jinja file")
    return path


Template = Annotated[
    Annotated[TemplateName, Tag("name")] | Annotated[StudyPath, AfterValidator(_jinja_file), Tag("file")],
    Discriminator(lambda value: "name" if value in get_args(TemplateName) else "file"),
]


class Chat(Section):
    """Text of a conversation, and the tokens that the loss covers."""

    template: Template | None = Field(
        None, description="chat template; None: tulu for a reference model, otherwise the model's own"
    )
    loss_on: LossOn = "last_answer"
    loss: Reduction = Field("mean", description="how the losses of a sample's tokens make one")

    @property
    def file(self) -> Path | None:
        """File of the template; None if it is a named one."""
        return self.template if isinstance(self.template, Path) else None

    def file_text(self) -> str | None:
        """Return the text of the template's file; None if the template is a named one.

        Raises:
            StudyError: The file cannot be read.
        """
        try:
            return self.file.read_text(encoding="utf-8") if self.file else None
        except (OSError, UnicodeDecodeError) as error:
            raise StudyError(
                f"{self.file}: cannot be read ({error}); correct chat.template in the study file"
            ) from error
