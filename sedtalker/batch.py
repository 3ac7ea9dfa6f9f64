"""Batch runs: process many files, in worker processes or on a cluster, and resume an interrupted run.

The results of a file are all written or none. A failure is printed and does not stop the other files. The output
folder also gets `.sedtalker/NAME.json`, a record of each finished file that `--resume` compares with its input, and,
for more than one input, `sedtalker-report.json`. A record is written when all results of its file are complete but
still have temporary names. A run that was killed at any moment therefore never computes a complete result again.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryFile
from typing import Any

from sedtalker import __version__
from sedtalker.cluster import map_on_cluster
from sedtalker.errors import (
    AnimationError,
    AudioError,
    DataError,
    SEDTalkerError,
    first_line,
    one_line,
    require,
    warnings_as_lines,
)
from sedtalker.files import RECORDS_FOLDER, atomic_write, digest, final_name, replace_into, sha256, write_error
from sedtalker.task_options import (
    RESULT_ENDINGS,
    EnrollOptions,
    Options,
    ReadingOptions,
    RenderOptions,
    check_options,
    option_files,
    profile_path,
)
from sedtalker.tasks import FileTask, load_task, open_video_process
from sedtalker.workers import WorkerDeath, map_in_workers

REPORT = "sedtalker-report.json"
MAX_STEM = 220  # bytes; the names of results and temporary files are longer, and file systems allow 255
ONE_SPEAKER = "all"  # of `same_speaker`
_SIMPLE_ENDING = re.compile(r"\.\w+")


@dataclass(frozen=True)
class BatchConfig:
    """Settings of a batch run, which do not change its results."""

    jobs: int = 1  # worker processes; 1 runs in the main process
    resume: bool = False  # skip files that an earlier run finished with the same input, weights and options
    executor: str = "local"  # or "slurm": `jobs` array tasks, each with a share of the files
    debug: bool = False  # show tracebacks
    cluster: str | None = None  # type of cluster, as submitit names it; None: detect it
    video_process: bool = False  # of `open_video_process`; its child imports the main module, as every spawned one does


@dataclass(frozen=True)
class FileOutcome:
    """Status and results of one input, as in the report."""

    file: str
    status: str  # done, failed, or kept (an earlier run has finished it)
    seconds: float = 0.0
    reason: str = ""
    made: list[str] = field(default_factory=list)
    summary: tuple[str, ...] = ()  # lines to print


def run_batch(inputs: Sequence[Path], folder: Path, options: Options, config: BatchConfig | None = None) -> int:
    """Process every input with `options` and write the results to `folder`; returns 0 if all were written, else 1.

    Missing files, two inputs of the same name and an output folder that cannot be written are reported before a
    model is loaded.

    Raises:
        SEDTalkerError: an error that concerns all inputs, such as a missing model.
    """
    config = config or BatchConfig()
    missing = AnimationError if isinstance(options, RenderOptions) else AudioError
    if not inputs:
        raise missing("no files found. Name files, a folder that contains files, or a pattern in quotes")
    check_options(options)
    reasons = {path: _input_problem(path) for path in inputs}
    absent = [FileOutcome(_escape(path), "failed", reason=reason) for path, reason in reasons.items() if reason]
    for outcome in absent:
        _print_outcome(outcome)
    present = [path for path, reason in reasons.items() if not reason]
    _check_unique_names(present, folder)
    with _remove_empty_folders(folder):
        if present and isinstance(options, ReadingOptions) and options.same_speaker is not None:
            options = _pool_voices(present, folder, options, config)
        outcomes = absent + (_run_files(present, folder, options, config, len(inputs) > 1) if present else [])
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if len(inputs) > 1:
        if present:
            _write_report(outcomes, folder)
        if failed:
            print(f"sedtalker: {len(failed)} of {len(inputs)} files failed", file=sys.stderr)
    return 1 if failed else 0


def _escape(path: Path) -> str:
    """A path as text that any stream can encode as UTF-8."""
    return str(path).encode(errors="backslashreplace").decode()


def _input_problem(path: Path) -> str:
    """Why an input cannot be read or its results named, without reading it; empty if no problem was found."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return f"a name that is not UTF-8: {_escape(path)}. Rename the file"
    if len(path.stem.encode()) > MAX_STEM:
        return f"a name that is too long for its results: {path}. Rename the file to {MAX_STEM} bytes or fewer"
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        elif not path.exists():
            if str(path) == "-":
                return "cannot read standard input: -. Save it to a file and name that file"
            if re.match(r"[a-z]{2,}:/", str(path)):
                return f"an address, not a file: {path}. Download it and name the file"
            return f"no such file: {path}. Check the path"
        elif not path.is_file():
            return f"not a file but a pipe or device: {path}. Save it to a file first, since it is read more than once"
    except OSError as error:
        return f"cannot open: {path} ({error.strerror}). Check the path and its permissions"
    return ""


def _pool_voices(paths: list[Path], folder: Path, options: Options, config: BatchConfig) -> Options:
    """Enroll the voice of every input; returns options with which each knows the other recordings of its speaker.

    The profiles of an input's other recordings do not depend on the order of the inputs. An input that cannot be read
    has no profile; processing it reports the reason.
    """
    from sedtalker.emotion.voice import VoiceProfile
    from sedtalker.emotion.voice_pool import merge_others

    assert isinstance(options, ReadingOptions)
    speakers = _speakers(paths, options.same_speaker or ONE_SPEAKER)
    pooled = folder / RECORDS_FOLDER / "voices"
    own = pooled / "own"
    enroll = EnrollOptions(options.device, options.diarizer, options.audio_track)
    _run_files(paths, own, enroll, config, many=True, quiet=True)
    profiles = {path: profile_path(own, path) for path in paths}
    for speaker in dict.fromkeys(speakers.values()):
        members = [path for path in paths if speakers[path] == speaker]
        known = {path: VoiceProfile.load(profiles[path]) for path in members if profiles[path].is_file()}
        for path, profile in merge_others(known).items():
            result = profile_path(pooled, path)
            if profile is None:
                result.unlink(missing_ok=True)
            else:
                profile.save(result)
    return replace(options, voice_folder=pooled)


def _speakers(paths: list[Path], source: str) -> dict[Path, str]:
    """The speaker of each input: the same for all, one for each folder, or from a table.

    Raises:
        DataError: the table cannot be read, or an input is not in it.
    """
    if source == ONE_SPEAKER:
        return dict.fromkeys(paths, source)
    if source == "folder":
        return {path: str(path.resolve().parent) for path in paths}
    from sedtalker.data.tables import index_rows, match_names, read_table

    table = Path(source)
    rows = match_names(index_rows(read_table(table, ("file", "speaker")), "file", table),
                       [path.stem for path in paths], table, complete=False)  # fmt: skip
    absent = [path for path in paths if not rows.get(path.stem, {}).get("speaker")]
    if absent:
        raise DataError(f"no speaker of {absent[0]} in the table: {table}. Add a row with its file and speaker")
    return {path: rows[path.stem]["speaker"] for path in paths}


def _run_files(
    paths: list[Path], folder: Path, options: Options, config: BatchConfig, many: bool, quiet: bool = False
) -> list[FileOutcome]:
    """Process inputs that exist, or keep their finished results; `quiet` prints no outcomes."""
    _check_writable(folder)
    keys: dict[Path, str] = {}
    if many or config.resume:
        weights = _model_identities(options)
        keys = {path: key for path in paths if (key := _resume_key(path, options, weights))}
    skipped = [path for path in paths if config.resume and path in keys and _is_finished(path, folder, keys[path])]
    outcomes = [FileOutcome(str(path), "kept") for path in skipped]
    todo = [path for path in paths if path not in skipped]
    if config.resume:
        for path in todo:
            _remove_leftovers(path, folder)
    for outcome in _show_progress(_iterate_outcomes(todo, folder, options, config, keys), len(todo), many):
        outcomes.append(outcome)
        if not quiet:
            _print_outcome(outcome)
    return outcomes


def _iterate_outcomes(
    paths: list[Path], folder: Path, options: Options, config: BatchConfig, keys: dict[Path, str]
) -> Iterator[FileOutcome]:
    if not paths:
        return
    if config.executor == "slurm":
        yield from _run_on_cluster(paths, folder, options, config, keys)
    elif config.jobs > 1 and len(paths) > 1:
        yield from _run_in_processes(paths, folder, options, config, keys)
    else:
        opened = open_video_process(options) if config.video_process and not config.debug else nullcontext()
        with opened as video_process:
            run_task = load_task(options, folder)
            if video_process is not None:
                run_task = partial(run_task, video_process=video_process)  # type: ignore[call-arg]
            for path in paths:
                yield _run_task(run_task, path, folder, keys.get(path), config.debug)


def _run_task(run_task: FileTask, path: Path, folder: Path, key: str | None, debug: bool) -> FileOutcome:
    start = time.perf_counter()
    try:
        with warnings_as_lines():  # worker processes print their own warnings
            made = run_task(path, partial(_record, path, folder, key))
    except Exception as error:  # an error of one file must not stop the others
        if debug:
            traceback.print_exc()
        reason = str(error)
        if not isinstance(error, SEDTalkerError):
            reason = f"unexpected {type(error).__name__}: {path} ({first_line(error)}). Run with --debug"
        return FileOutcome(str(path), "failed", time.perf_counter() - start, reason)
    files = [str(file) for file in made.paths]
    return FileOutcome(str(path), "done", time.perf_counter() - start, made=files, summary=made.summary)


@dataclass(frozen=True)
class _TaskLoader:
    """Arguments of a worker process; calling it loads the models, once per process."""

    options: Options
    folder: Path
    jobs: int  # processes that share the processors
    debug: bool

    def __call__(self) -> Callable[[tuple[Path, str | None]], FileOutcome]:
        """Returns the function that writes the results of one input."""
        from sedtalker.render.parallel import available_threads, limit_threads

        threads = max(1, available_threads() // self.jobs)
        limit_threads(threads)
        run_task = load_task(self.options, self.folder)
        if "torch" in sys.modules:  # rendering does not need it
            sys.modules["torch"].set_num_threads(threads)
        return lambda task: _run_task(run_task, task[0], self.folder, task[1], self.debug)


def _run_in_processes(
    paths: list[Path], folder: Path, options: Options, config: BatchConfig, keys: dict[Path, str]
) -> Iterator[FileOutcome]:
    jobs = min(config.jobs, len(paths))
    load = _TaskLoader(options, folder, jobs, config.debug)
    tasks = [(path, keys.get(path)) for path in paths]
    for (path, _), result in map_in_workers(load, tasks, jobs, lambda task: _remove_leftovers(task[0], folder)):
        if isinstance(result, WorkerDeath):
            yield FileOutcome(
                str(path),
                "failed",
                reason=f"the process that worked on it {result.reason}: {path}. Use fewer --jobs, or free memory",
            )
        else:
            yield result


def _run_on_cluster(
    paths: list[Path], folder: Path, options: Options, config: BatchConfig, keys: dict[Path, str]
) -> Iterator[FileOutcome]:
    """Submit shares of the files as Slurm jobs, through submitit. All nodes must be able to write the folder."""
    shares = [paths[first :: config.jobs] for first in range(min(config.jobs, len(paths)))]
    run_share = partial(_run_cluster_share, folder=folder, options=options, config=config, keys=keys)
    results = map_on_cluster(run_share, shares, folder / RECORDS_FOLDER / "cluster", config.cluster)
    for share, outcomes in zip(shares, results, strict=True):
        if isinstance(outcomes, SEDTalkerError):  # it concerns all files
            raise outcomes
        if not isinstance(outcomes, Exception):
            yield from outcomes
            continue
        for path in share:  # the finished files of the job have records
            if path in keys and _is_finished(path, folder, keys[path]):
                yield FileOutcome(str(path), "done", made=_recorded_results(path, folder))
            else:
                yield FileOutcome(
                    str(path),
                    "failed",
                    reason=f"its cluster job failed: {path} ({first_line(outcomes)}). Run again with --resume",
                )


def _run_cluster_share(
    paths: list[Path], folder: Path, options: Options, config: BatchConfig, keys: dict[Path, str]
) -> list[FileOutcome] | SEDTalkerError:
    """Process the files of one cluster job in a worker process, so that a crash costs only one file.

    An error that concerns all files is returned, not raised, because submitit would add a traceback.
    """
    try:
        return list(_run_in_processes(paths, folder, options, replace(config, jobs=1), keys))
    except SEDTalkerError as error:
        return error


def _resume_key(path: Path, options: Options, weights: list[str]) -> str | None:
    """Hash of everything that determines a result: the input's bytes, options, weights and program version.

    None if a file cannot be read; processing the input then reports the reason.
    """
    try:
        if not path.is_file():  # reading a pipe would empty it
            return None
        files = [digest(file) for file in option_files(options, path)]
        described = [sha256(path), type(options).__name__, asdict(options), files, weights, __version__]
    except (OSError, SEDTalkerError):
        return None
    return hashlib.sha256(json.dumps(described, default=str).encode()).hexdigest()


def _model_identities(options: Options) -> list[str]:
    """Hash of the weights of every model that the options name, or its revision on the hub."""
    from sedtalker.resources import asset

    identities = []
    for kind, attribute in (("talker", "model"), ("diarizer", "diarizer")):
        name = getattr(options, attribute, None)
        if name is None:
            continue
        packaged = asset(kind, name)
        config, identity = _model_config(packaged if _is_folder(packaged) else Path(name))
        identities.append(identity)
        encoder = config.get("encoder") if isinstance(config, dict) else None
        if isinstance(encoder, str) and not _is_folder(asset("speech", encoder)):
            identities.append(_model_config(Path(encoder))[1])
    return identities


def _model_config(model: Path) -> tuple[Any, str]:
    """The configuration of a model in a folder or on the hub, and an identifier of its weights.

    A folder written by this program has the hash of its weights in its configuration. For other folders all files are
    hashed.
    """
    revision = ""
    if not _is_folder(model) and str(model).count("/") == 1:
        try:
            file = require("huggingface_hub", "hub").hf_hub_download(str(model), "config.json")
        except Exception:  # no such model, connection or package: loading the model reports it
            return {}, str(model)
        model = Path(file).parent
        revision = model.name  # the hub's cache names folders by revision
    try:
        described = json.loads((model / "config.json").read_text(encoding="utf-8"))
        hashed = revision or "sha256" in described
        return described.get("config"), revision + (sha256(model / "config.json") if hashed else digest(model))
    except (OSError, ValueError, AttributeError):
        return {}, str(model)


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder; False for names that the file system does not allow."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _record_path(path: Path, folder: Path) -> Path:
    return folder / RECORDS_FOLDER / f"{path.name}.json"


def _record(path: Path, folder: Path, key: str | None, results: dict[Path, Path]) -> None:
    """Write the record of an input; `results` maps the final path of each result to its present temporary path."""
    if key is None:
        return
    made = {
        str(final.relative_to(folder)): {"aside": str(temp_path.relative_to(folder)), "sha256": digest(temp_path)}
        for final, temp_path in results.items()
    }
    with atomic_write(_record_path(path, folder)) as temp_path:
        temp_path.write_text(json.dumps({"key": key, "made": made}), encoding="utf-8")


def _is_finished(path: Path, folder: Path, key: str) -> bool:
    """Whether an earlier run with this key finished, and its results are unchanged; missing renames are done now."""
    try:
        record = json.loads(_record_path(path, folder).read_text(encoding="utf-8"))
        return record["key"] == key and all(
            _complete_rename(folder / name, folder / result["aside"], result["sha256"])
            for name, result in record["made"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _recorded_results(path: Path, folder: Path) -> list[str]:
    """Paths of the results in the record of an input."""
    record = json.loads(_record_path(path, folder).read_text(encoding="utf-8"))
    return [str(folder / name) for name in record["made"]]


def _complete_rename(final: Path, temp_path: Path, expected: str) -> bool:
    """Whether a result exists unchanged; a complete result that still has its temporary name is renamed first."""
    if final != temp_path and temp_path.exists() and digest(temp_path) == expected:
        replace_into(temp_path, final)
    return final.exists() and digest(final) == expected


def _remove_leftovers(path: Path, folder: Path) -> None:
    """Delete temporary files (see `files.atomic_write`) of the results of this input."""
    stems = {path.stem, path.stem.replace(".", "_")}
    for temp_path in folder.glob(".*~*"):
        name = final_name(temp_path).name
        endings = [name[len(stem) :] for stem in stems if name.startswith(stem)]
        if name == temp_path.name or not any(end in RESULT_ENDINGS or _SIMPLE_ENDING.fullmatch(end) for end in endings):
            continue
        if temp_path.is_dir():
            shutil.rmtree(temp_path, ignore_errors=True)
        else:
            temp_path.unlink(missing_ok=True)


def _show_progress(outcomes: Iterator[FileOutcome], count: int, many: bool) -> Iterator[FileOutcome]:
    from tqdm import tqdm

    yield from tqdm(outcomes, total=count, desc="files", unit="file", disable=None if many and count > 1 else True)


def _write_report(outcomes: list[FileOutcome], folder: Path) -> None:
    """Write the report as JSON, and print it as a table with the failures last."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.status == "failed")
    counts = {status: sum(outcome.status == status for outcome in ordered) for status in ("done", "kept", "failed")}
    with atomic_write(folder / REPORT) as temp_path:
        temp_path.write_text(
            json.dumps({"counts": counts, "files": [asdict(o) for o in ordered]}, indent=2) + "\n", encoding="utf-8"
        )
    for outcome in ordered:
        print(f"{outcome.status:<7}{outcome.seconds:8.1f} s  {one_line(outcome.file)}")


def _print_outcome(outcome: FileOutcome) -> None:
    if outcome.status == "failed":
        print(f"sedtalker: {one_line(outcome.reason)}", file=sys.stderr)
    else:
        for line in (*outcome.summary, *outcome.made):
            print(one_line(line))


def _check_unique_names(paths: Sequence[Path], folder: Path) -> None:
    """Raise if the results of two inputs would have the same names in a folder, which may not exist yet."""
    twins = _find_twins(paths, str)
    if twins is None and _ignores_case(folder):
        twins = _find_twins(paths, lambda name: unicodedata.normalize("NFC", name).casefold())
    if twins is not None:
        raise SEDTalkerError(
            f"two inputs of the same name: {twins[0]} and {twins[1]}. Process them in two runs, with different folders "
            "for -o"
        )


def _find_twins(paths: Iterable[Path], key: Callable[[str], str]) -> tuple[Path, Path] | None:
    """The first two paths whose names without suffix have the same key."""
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(key(path.stem), path)
        if other is not path:
            return other, path
    return None


def _ignores_case(folder: Path) -> bool:
    """Whether names that differ in case alone are the same file in a folder, as on Windows and macOS."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    try:
        with NamedTemporaryFile(dir=existing, prefix="case") as file:
            path = Path(file.name)
            return path.with_name(path.name.upper()).exists()
    except OSError:  # _check_writable reports it
        return False


@contextmanager
def _remove_empty_folders(folder: Path) -> Iterator[None]:
    """Remove new folders at the end if no file was written to them."""
    new = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        yield
    finally:
        with suppress(OSError):  # not empty, or not created
            for parent in new:
                parent.rmdir()


def _check_writable(folder: Path) -> None:
    """Raise before the models are loaded if the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise write_error(folder, error) from error
