"""``diffusion-codec study design | serve | export | page | observers``."""

from pathlib import Path
from typing import Annotated

import typer

from diffusion_codec.errors import BadInputError
from diffusion_codec.files import STANDARD_STREAM, check_target, write_atomically

app = typer.Typer(help="Run a forced-choice study of codecs in a browser.", no_args_is_help=True)

FolderArgument = Annotated[Path, typer.Argument(help="Folder of the study.")]
DEFAULT_FOLDER = Path("study")  # not below build/: people's votes cannot be built again
ForceOption = Annotated[bool, typer.Option("--force", "-f", help="Overwrite the file if it exists.")]


@app.command()
def design(
    folder: FolderArgument = DEFAULT_FOLDER,
    dataset: Annotated[
        str, typer.Option(help="Data set; auto: Kodak where a copy is at hand, else the embedded sample.")
    ] = "auto",
    images: Annotated[int, typer.Option(min=1, help="Photographs, spread over the data set.")] = 6,
    codec: Annotated[str, typer.Option(help="The codec under test.")] = "dfc-mini",
    rivals: Annotated[str, typer.Option(help="Codecs it is compared with; comma between.")] = "avif,jpeg2000",
    bitrate: Annotated[float, typer.Option(help="Bits per pixel of the codec under test.")] = 0.1,
    ratios: Annotated[str, typer.Option(help="The rivals' rates as multiples of that.")] = "1,1.5,2",
    every_pair: Annotated[
        bool, typer.Option("--every-pair", help="Compare rivals with each other, too.")
    ] = False,
    trials: Annotated[int, typer.Option(help="Pairs a session, repeats and sentinels included.")] = 24,
    repeats: Annotated[int, typer.Option(min=0, help="Pairs shown twice, to see who is consistent.")] = 2,
    sentinels: Annotated[int, typer.Option(min=0, help="Pairs with a known answer.")] = 2,
    ties: Annotated[bool, typer.Option(help="Offer 'no difference'.")] = True,
    crop: Annotated[int, typer.Option(min=64, help="Pixels shown of the longer side, at most.")] = 768,
    share: Annotated[
        float, typer.Option(help="Preference that the study shall be able to show, 0.5 to 1.")
    ] = 0.6,
    power: Annotated[float, typer.Option(help="With this probability.")] = 0.8,
    level: Annotated[float, typer.Option(help="At this confidence.")] = 0.95,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Which picture is better?",
    seed: Annotated[int, typer.Option(min=0, help="Decides who sees what.")] = 0,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    keep: Annotated[
        bool, typer.Option("--keep", help="Do nothing if the folder holds a study already.")
    ] = False,
) -> None:
    """Make the pictures and the plan of a study, and say how many raters it takes."""
    from diffusion_codec.evaluation import parameters
    from diffusion_codec.user_study import design as plan
    from diffusion_codec.user_study import power as needed
    from diffusion_codec.user_study import stimuli, store

    if (folder / plan.FILE).is_file() and keep:
        typer.echo(f"{folder} holds a study already; it is kept")
        return
    if (folder / store.FILE).is_file():
        raise BadInputError(f"{folder} holds votes: export them and choose another folder")
    times = parameters.numbers(ratios, "ratios")
    names = parameters.words(rivals, "rivals")
    (rate,) = parameters.numbers([bitrate], "bitrate", high=24)
    needed.check(share, power, level)
    photographs = stimuli.choose_dataset(dataset)
    typer.echo(f"photographs: {photographs.name} ({photographs.origin})")
    anchor, others = stimuli.conditions(codec, names, rate, times)
    made = stimuli.make(
        folder,
        photographs,
        images,
        stimuli.pairs(anchor, others, every_pair),
        title=title,
        crop=crop,
        seed=seed,
        trials=trials,
        repeats=repeats,
        sentinels=sentinels,
        ties=ties,
        device=device,
        progress=typer.echo,
    )
    plan.save(made, folder)
    typer.echo(needed.advice(len(made.images), len(made.pairs), made.main_trials, share, power, level))
    typer.echo(f"written: {folder / plan.FILE}; next: diffusion-codec study serve {folder}")


@app.command()
def serve(
    folder: FolderArgument = DEFAULT_FOLDER,
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 for the whole network.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8765,
    name: Annotated[
        list[str] | None, typer.Option(help="Name under which raters reach the server; may be given again.")
    ] = None,
    max_sessions: Annotated[int, typer.Option(min=1, help="Sessions that may be begun.")] = 1000,
) -> None:
    """Run the study: raters open the printed address in their browsers. Ctrl-C ends it; no vote is lost."""
    from diffusion_codec.user_study import server

    def announce(address: str) -> None:
        typer.echo(f"the study runs at {address} (votes: {folder / 'votes.sqlite'}; Ctrl-C ends it)")

    server.serve(folder, host, port, name or (), max_sessions, announce)


@app.command()
def export(
    folder: FolderArgument = DEFAULT_FOLDER,
    out: Annotated[str, typer.Option(help="csv file to write; - is standard output.")] = STANDARD_STREAM,
    force: ForceOption = False,
) -> None:
    """Write the votes as csv; the columns are explained in the book."""
    from diffusion_codec.user_study import store

    text = store.export(folder)
    if out == STANDARD_STREAM:
        typer.echo(text, nl=False)
    else:
        write_atomically(out, text.encode(), force)


@app.command()
def page(
    folder: FolderArgument = DEFAULT_FOLDER,
    out: Annotated[Path, typer.Option(help="HTML file to write.")] = Path("study.html"),
    sessions: Annotated[int, typer.Option(min=1, max=250, help="Different sessions in the file.")] = 24,
    force: ForceOption = False,
) -> None:
    """Write the study as one HTML file that needs no server; raters download their votes."""
    from diffusion_codec.user_study import page as pages
    from diffusion_codec.user_study.design import load

    check_target(out, force)
    pages.write_static(load(folder), folder, out, sessions, force)
    typer.echo(f"written: {out} ({out.stat().st_size / 1e6:.1f} MB)")


@app.command()
def observers(
    records: Annotated[
        Path | None, typer.Option(help="Measured numbers (csv). Default: data/results/kodak_rd.csv")
    ] = None,
    codec: Annotated[str, typer.Option(help="The codec under test.")] = "dfc-mini",
    rivals: Annotated[str, typer.Option(help="Codecs it is compared with.")] = "avif,jpeg2000,webp,jpeg",
    bitrate: Annotated[float, typer.Option(help="Bits per pixel of the codec under test.")] = 0.1,
    ratios: Annotated[str, typer.Option(help="The rivals' rates as multiples of that.")] = "1,1.5,2",
    out: Annotated[Path | None, typer.Option(help="csv file for the table.")] = None,
    force: ForceOption = False,
) -> None:
    """Metrics as raters, fitted to real people: what they would prefer. They are not people."""
    from diffusion_codec.evaluation import parameters
    from diffusion_codec.evaluation.records import read
    from diffusion_codec.evaluation.study import stored_path
    from diffusion_codec.user_study import observers as models

    if out is not None:
        check_target(out, force)
    fitted = models.from_people()
    names, times = parameters.words(rivals, "rivals"), parameters.numbers(ratios, "ratios")
    (rate,) = parameters.numbers([bitrate], "bitrate", high=24)
    table = models.judge(read(records or stored_path("kodak")), fitted, codec, names, rate, times)

    def shown(value: float) -> str:
        return f"{value:.3f}"

    typer.echo("How well they predict the people of the HiFiC study:")
    typer.echo(models.validation(fitted).to_string(index=False, float_format=shown))
    typer.echo(f"\nShare of choices that the model observers expect for {codec} at {rate:g} bits per pixel:")
    typer.echo(table.to_string(index=False, float_format=shown))
    if out is not None:
        write_atomically(out, table.to_csv(index=False).encode(), force)
