"""Batch runs: process many files, in worker processes or on a cluster, and resume an interrupted run.

The results of a file are all written or none. A failure is printed and does not stop the other files. If two inputs
have the same name, the results are in subfolders, as the inputs are. The folder of a result also gets
`.sedtalker/NAME.json`, a record of each finished file that `--resume` compares with its input, and the output folder
gets, for more than one input, `sedtalker-report.json`. A record is written when all results of its file are complete
but still have temporary names. A run that was killed at any moment therefore never computes a complete result again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import time
import traceback
import unicodedata
from collections import defaultdict
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
    VOICES_FOLDER,
    AnimateOptions,
    EnrollOptions,
    Options,
    PictureOptions,
    ReadingOptions,
    RenderOptions,
    check_options,
    option_files,
    pooled_profile,
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
class _Job:
    """One input."""

    path: Path
    folder: Path  # of its results
    key: str | None = None  # of its results, for `--resume`; None: none is recorded


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

    Missing files, two inputs of the same name in a folder and an output folder that cannot be written are reported
    before a model is loaded.

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
    jobs = _make_jobs([path for path, reason in reasons.items() if not reason], folder, options)
    outcomes = absent
    with _remove_empty_folders([folder, *(job.folder for job in jobs)]):
        if jobs:
            _check_writable(folder)
            if isinstance(options, ReadingOptions) and options.same_speaker is not None:
                _pool_voices(jobs, folder, options, config)
            outcomes = absent + _run_files(jobs, options, config, len(inputs) > 1)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if len(inputs) > 1:
        if jobs:
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


def _pool_voices(jobs: list[_Job], folder: Path, options: ReadingOptions, config: BatchConfig) -> None:
    """Enroll the voice of every input, and write for each the profile of the other recordings of its speaker.

    The profiles of an input's other recordings do not depend on the order of the inputs. An input that cannot be read
    has no profile; processing it reports the reason.
    """
    from sedtalker.emotion.voice import VoiceProfile
    from sedtalker.emotion.voice_pool import merge_others

    speakers = _speakers(jobs, folder, options.same_speaker or ONE_SPEAKER)
    enrolling = [_Job(job.path, job.folder / VOICES_FOLDER / "own") for job in jobs]
    enroll = EnrollOptions(options.device, options.diarizer, options.audio_track)
    _run_files(enrolling, enroll, config, many=True, quiet=True)
    profiles = {job.path: profile_path(job.folder, job.path) for job in enrolling}
    members: dict[str, list[_Job]] = defaultdict(list)
    for job in jobs:
        members[speakers[job.path]].append(job)
    for group in members.values():
        paths = [job.path for job in group if profiles[job.path].is_file()]
        others = merge_others({path: VoiceProfile.load(profiles[path]) for path in paths})
        for job in group:
            result, profile = pooled_profile(job.folder, job.path), others.get(job.path)
            if profile is None:
                result.unlink(missing_ok=True)
            else:
                profile.save(result)


def _speakers(jobs: list[_Job], folder: Path, source: str) -> dict[Path, str]:
    """The speaker of each input: the same for all, one for each folder, or from a table.

    The table names an input with or without its folder, but with it if another one has the same name.

    Raises:
        DataError: the table cannot be read, or an input is not in it.
    """
    if source == ONE_SPEAKER:
        return {job.path: source for job in jobs}
    if source == "folder":
        return {job.path: str(job.path.resolve().parent) for job in jobs}
    from sedtalker.data.tables import index_rows, match_names, read_table

    table = Path(source)
    names = {job.path: (job.folder.relative_to(folder) / job.path.stem).as_posix() for job in jobs}
    rows = match_names(
        index_rows(read_table(table, ("file", "speaker")), "file", table), [*names.values()], table, complete=False
    )
    absent = [path for path, name in names.items() if not rows.get(name, {}).get("speaker")]
    if absent:
        raise DataError(f"no speaker of {absent[0]} in the table: {table}. Add a row with its file and speaker")
    return {path: rows[name]["speaker"] for path, name in names.items()}


def _run_files(
    jobs: list[_Job], options: Options, config: BatchConfig, many: bool, quiet: bool = False
) -> list[FileOutcome]:
    """Process inputs that exist, or keep their finished results; `quiet` prints no outcomes."""
    if many or config.resume:
        weights = _model_identities(options)
        jobs = [replace(job, key=_resume_key(job, options, weights)) for job in jobs]
    kept = {job for job in jobs if config.resume and _is_finished(job)}
    outcomes = [FileOutcome(str(job.path), "kept") for job in jobs if job in kept]
    todo = [job for job in jobs if job not in kept]
    if config.resume:
        _remove_leftovers(todo)
    for outcome in _show_progress(_iterate_outcomes(todo, options, config), len(todo), many):
        outcomes.append(outcome)
        if not quiet:
            _print_outcome(outcome)
    return outcomes


def _iterate_outcomes(jobs: list[_Job], options: Options, config: BatchConfig) -> Iterator[FileOutcome]:
    if not jobs:
        return
    if config.executor == "slurm":
        yield from _run_on_cluster(jobs, options, config)
    elif config.jobs > 1 and len(jobs) > 1:
        yield from _run_in_processes(jobs, options, config)
    else:
        opened = open_video_process(options) if config.video_process and not config.debug else nullcontext()
        with opened as video_process:
            run_task = load_task(options)
            if video_process is not None:
                run_task = partial(run_task, video_process=video_process)  # type: ignore[call-arg]
            for job in jobs:
                yield _run_task(run_task, job, config.debug)


def _run_task(run_task: FileTask, job: _Job, debug: bool) -> FileOutcome:
    start, path = time.perf_counter(), job.path
    try:
        with warnings_as_lines():  # worker processes print their own warnings
            made = run_task(path, job.folder, partial(_record, job))
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
    processes: int  # that share the processors
    debug: bool

    def __call__(self) -> Callable[[_Job], FileOutcome]:
        """Returns the function that writes the results of one input."""
        from sedtalker.render.parallel import available_threads, limit_threads

        threads = max(1, available_threads() // self.processes)
        limit_threads(threads)
        run_task = load_task(self.options)
        if "torch" in sys.modules:  # rendering does not need it
            sys.modules["torch"].set_num_threads(threads)
        return lambda job: _run_task(run_task, job, self.debug)


def _run_in_processes(jobs: list[_Job], options: Options, config: BatchConfig) -> Iterator[FileOutcome]:
    processes = min(config.jobs, len(jobs))
    load = _TaskLoader(options, processes, config.debug)
    for job, result in map_in_workers(load, jobs, processes, lambda job: _remove_leftovers([job])):
        if isinstance(result, WorkerDeath):
            yield FileOutcome(
                str(job.path),
                "failed",
                reason=f"the process that worked on it {result.reason}: {job.path}. Use fewer --jobs, or free memory",
            )
        else:
            yield result


def _run_on_cluster(jobs: list[_Job], options: Options, config: BatchConfig) -> Iterator[FileOutcome]:
    """Submit shares of the files as Slurm jobs, through submitit. All nodes must be able to write the folders."""
    shares = [jobs[first :: config.jobs] for first in range(min(config.jobs, len(jobs)))]
    run_share = partial(_run_cluster_share, options=options, config=config)
    results = map_on_cluster(run_share, shares, jobs[0].folder / RECORDS_FOLDER / "cluster", config.cluster)
    for share, outcomes in zip(shares, results, strict=True):
        if isinstance(outcomes, SEDTalkerError):  # it concerns all files
            raise outcomes
        if not isinstance(outcomes, Exception):
            yield from outcomes
            continue
        for job in share:  # the finished files of the share have records
            if _is_finished(job):
                yield FileOutcome(str(job.path), "done", made=_recorded_results(job))
            else:
                yield FileOutcome(
                    str(job.path),
                    "failed",
                    reason=f"its cluster job failed: {job.path} ({first_line(outcomes)}). Run again with --resume",
                )


def _run_cluster_share(jobs: list[_Job], options: Options, config: BatchConfig) -> list[FileOutcome] | SEDTalkerError:
    """Process the files of one cluster job in a worker process, so that a crash costs only one file.

    An error that concerns all files is returned, not raised, because submitit would add a traceback.
    """
    try:
        return list(_run_in_processes(jobs, options, replace(config, jobs=1)))
    except SEDTalkerError as error:
        return error


def _resume_key(job: _Job, options: Options, weights: list[str]) -> str | None:
    """Hash of everything that determines a result: the input's bytes, options, weights and program version.

    None if a file cannot be read; processing the input then reports the reason.
    """
    try:
        if not job.path.is_file():  # reading a pipe would empty it
            return None
        read = option_files(options, job.path)
        if isinstance(options, ReadingOptions) and options.same_speaker is not None:
            read += [file for file in [pooled_profile(job.folder, job.path)] if file.is_file()]
        files = [digest(file) for file in read]
        described = [sha256(job.path), type(options).__name__, asdict(options), files, weights, __version__]
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


def _record_path(job: _Job) -> Path:
    return job.folder / RECORDS_FOLDER / f"{job.path.name}.json"


def _record(job: _Job, results: dict[Path, Path]) -> None:
    """Write the record of an input; `results` maps the final path of each result to its present temporary path."""
    if job.key is None:
        return
    folder = job.folder
    made = {
        str(final.relative_to(folder)): {"aside": str(temp_path.relative_to(folder)), "sha256": digest(temp_path)}
        for final, temp_path in results.items()
    }
    with atomic_write(_record_path(job)) as temp_path:
        temp_path.write_text(json.dumps({"key": job.key, "made": made}), encoding="utf-8")


def _is_finished(job: _Job) -> bool:
    """Whether an earlier run with this key finished, and its results are unchanged; missing renames are done now."""
    if job.key is None:
        return False
    try:
        record = json.loads(_record_path(job).read_text(encoding="utf-8"))
        return record["key"] == job.key and all(
            _complete_rename(job.folder / name, job.folder / result["aside"], result["sha256"])
            for name, result in record["made"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _recorded_results(job: _Job) -> list[str]:
    """Paths of the results in the record of an input."""
    record = json.loads(_record_path(job).read_text(encoding="utf-8"))
    return [str(job.folder / name) for name in record["made"]]


def _complete_rename(final: Path, temp_path: Path, expected: str) -> bool:
    """Whether a result exists unchanged; a complete result that still has its temporary name is renamed first."""
    if final != temp_path and temp_path.exists() and digest(temp_path) == expected:
        replace_into(temp_path, final)
    return final.exists() and digest(final) == expected


def _remove_leftovers(jobs: Iterable[_Job]) -> None:
    """Delete temporary files (see `files.atomic_write`) of the results of these inputs."""
    stems_in: dict[Path, set[str]] = defaultdict(set)
    for job in jobs:
        stems_in[job.folder] |= {job.path.stem, job.path.stem.replace(".", "_")}
    for folder, stems in stems_in.items():
        for temp_path in folder.glob(".*~*"):
            name = final_name(temp_path).name
            if name != temp_path.name and any(_is_result(name, stem) for stem in stems):
                _remove(temp_path)


def _is_result(name: str, stem: str) -> bool:
    """Whether a file of this name is a result of an input with this stem."""
    ending = name.removeprefix(stem)
    return name.startswith(stem) and (ending in RESULT_ENDINGS or _SIMPLE_ENDING.fullmatch(ending) is not None)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


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


def _make_jobs(paths: Sequence[Path], folder: Path, options: Options) -> list[_Job]:
    """The inputs with the folders of their results: `folder`, which may not exist yet.

    If two inputs have the same name, the results of all are in subfolders, named as the folders of the inputs below the
    one that holds them all.

    Raises:
        SEDTalkerError: two inputs of the same name are in one folder, or an option finds files by the names of inputs.
    """
    jobs = [_Job(path, folder) for path in paths]
    twins, named = _find_twins(jobs), _files_by_name(options)
    if twins is not None and not named:
        jobs = [_Job(path, folder / parent) for path, parent in zip(paths, _relative_parents(paths), strict=True)]
        twins = _find_twins(jobs)
    if twins is not None:
        raise SEDTalkerError(
            f"two inputs of the same name{named and f' for {named}'}: {twins[0]} and {twins[1]}. Process them in two "
            "runs, with different folders for -o"
        )
    return jobs


def _files_by_name(options: Options) -> str:
    """The option that names several files or recordings, of which each input takes that of its own name; or nothing."""
    from sedtalker.emotion.track_io import TRACK_SUFFIXES

    if isinstance(options, PictureOptions) and options.captions is not None and options.captions.is_dir():
        return f"--captions {options.captions}"
    if isinstance(options, AnimateOptions) and options.emotion.lower().endswith(TRACK_SUFFIXES):
        return f"--emotion {options.emotion}"
    return ""


def _relative_parents(paths: Sequence[Path]) -> list[Path]:
    """The folder of each path, relative to the one that holds them all; "." if they are on several drives."""
    parents = [os.path.abspath(path.parent) for path in paths]  # noqa: PTH100, links keep their names
    try:
        top = os.path.commonpath(parents)
    except ValueError:
        return [Path()] * len(paths)
    return [Path(parent).relative_to(top) for parent in parents]


def _find_twins(jobs: Sequence[_Job]) -> tuple[Path, Path] | None:
    """The first two inputs whose results would have the same names."""
    twins = _find_repeated(jobs, str)
    if twins is None and jobs and _ignores_case(jobs[0].folder):
        twins = _find_repeated(jobs, lambda name: unicodedata.normalize("NFC", name).casefold())
    return twins


def _find_repeated(jobs: Iterable[_Job], key: Callable[[str], str]) -> tuple[Path, Path] | None:
    """The first two inputs of which the folder of the results and the name without suffix have the same key."""
    seen: dict[str, Path] = {}
    for job in jobs:
        other = seen.setdefault(key(str(job.folder / job.path.stem)), job.path)
        if other is not job.path:
            return other, job.path
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
def _remove_empty_folders(folders: Iterable[Path]) -> Iterator[None]:
    """Remove those of the folders and their parents at the end that are new, and to which no file was written."""
    new = {parent for folder in folders for parent in (folder, *folder.parents) if not parent.exists()}
    try:
        yield
    finally:
        for parent in sorted(new, key=lambda parent: len(parent.parts), reverse=True):
            with suppress(OSError):  # not empty, or not created
                parent.rmdir()


def _check_writable(folder: Path) -> None:
    """Raise before the models are loaded if the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise write_error(folder, error) from error
