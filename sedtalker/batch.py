"""Many files: each is done whole or not at all, a failure is told and does not stop the others, no work is lost.

Beside the results lie `.sedtalker/NAME.json`, the record of each finished file by which `--resume` knows it, and,
where there was more than one input, `sedtalker-report.json`. The record is written when all results of a file are
complete and before they get their names, so that whatever ends the program, no complete result is made again.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from sedtalker import __version__
from sedtalker.errors import AnimationError, AudioError, SEDTalkerError, require, warnings_as_lines
from sedtalker.files import RECORDS, atomic_write, digest, final_name, replace_into, sha256
from sedtalker.tasks import RESULT_ENDINGS, Options, RenderOptions, Work, check_options, option_files, prepare
from sedtalker.workers import WorkerDeath, map_in_workers

REPORT = "sedtalker-report.json"
_SIMPLE_ENDING = re.compile(r"\.\w+")


@dataclass(frozen=True)
class BatchConfig:
    """How a batch is run; nothing here changes what comes out."""

    jobs: int = 1  # processes
    resume: bool = False  # leave out what an earlier run finished with the same input, weights and options
    executor: str = "local"  # or "slurm": one array task for every share of the files
    debug: bool = False  # show tracebacks
    cluster: str | None = None  # submitit's name of the kind of cluster; None: the one that is found


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    file: str
    status: str  # done, failed, or kept (finished by an earlier run)
    seconds: float = 0.0
    reason: str = ""
    made: list[str] = field(default_factory=list)
    summary: tuple[str, ...] = ()  # lines for the screen


def run_batch(inputs: Sequence[Path], folder: Path, options: Options, running: BatchConfig | None = None) -> int:
    """Make what `options` asks for of every input, in `folder`; returns the exit code, 0 only if all of it is there.

    What can be known without loading a model (absent files, two results of one name, a folder that cannot be
    written) is told before one is loaded.

    Raises:
        SEDTalkerError: nothing can be done at all.
    """
    running = running or BatchConfig()
    missing = AnimationError if isinstance(options, RenderOptions) else AudioError
    if not inputs:
        raise missing("no files found. Name files, a folder that holds some, or a pattern in quotes")
    check_options(options)
    reasons = {path: _refusal(path) for path in inputs}
    absent = [Outcome(str(path), "failed", reason=reason) for path, reason in reasons.items() if reason]
    for outcome in absent:
        _tell(outcome)
    present = [path for path, reason in reasons.items() if not reason]
    _refuse_equal_names(present)
    with _no_empty_folder(folder):
        outcomes = absent + (_run(present, folder, options, running, len(inputs) > 1) if present else [])
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if len(inputs) > 1:
        if present:
            _write_report(outcomes, folder)
        if failed:
            print(f"sedtalker: {len(failed)} of {len(inputs)} files failed", file=sys.stderr)
    return 1 if failed else 0


def _refusal(path: Path) -> str:
    """Why an input cannot be read; empty if nothing is known against it yet."""
    try:
        if path.is_dir():
            next(path.iterdir(), None)
        elif not path.exists():
            if str(path) == "-":
                return "standard input is not read: -. Save it to a file and name that"
            return f"no such file: {path}. Check the path"
        elif not path.is_file():
            return f"a pipe or device, not a file: {path}. An input is read more than once: save it to a file first"
    except OSError as error:
        return f"cannot open: {path} ({error.strerror}). Check the path and its permissions"
    return ""


def _run(paths: list[Path], folder: Path, options: Options, running: BatchConfig, many: bool) -> list[Outcome]:
    _check_writable(folder)
    keys: dict[Path, str] = {}
    if many or running.resume:
        weights = _weights(options)
        keys = {path: key for path in paths if (key := _key(path, options, weights))}
    kept = [path for path in paths if running.resume and path in keys and _finished(path, folder, keys[path])]
    outcomes = [Outcome(str(path), "kept") for path in kept]
    todo = [path for path in paths if path not in kept]
    if running.resume:
        for path in todo:
            _remove_leftovers(path, folder)
    for outcome in _progress(_outcomes(todo, folder, options, running, keys), len(todo), many):
        outcomes.append(outcome)
        _tell(outcome)
    return outcomes


def _outcomes(
    paths: list[Path], folder: Path, options: Options, running: BatchConfig, keys: dict[Path, str]
) -> Iterator[Outcome]:
    if not paths:
        return
    if running.executor == "slurm":
        yield from _on_cluster(paths, folder, options, running, keys)
    elif running.jobs > 1 and len(paths) > 1:
        yield from _in_processes(paths, folder, options, running, keys)
    else:
        work = prepare(options, folder)
        for path in paths:
            yield _one(work, path, folder, keys.get(path), running.debug)


def _one(work: Work, path: Path, folder: Path, key: str | None, debug: bool) -> Outcome:
    start = time.perf_counter()
    try:
        with warnings_as_lines():  # here too, since worker processes print for themselves
            made = work(path, partial(_record, path, folder, key))
    except Exception as error:  # whatever one file brings about, the others are still done
        if debug:
            traceback.print_exc()
        reason = str(error)
        if not isinstance(error, SEDTalkerError):
            reason = (
                f"unexpected {type(error).__name__}: {path} ({reason.splitlines()[0] if reason else ''}). See --debug"
            )
        return Outcome(str(path), "failed", time.perf_counter() - start, reason)
    files = [str(file) for file in made.paths]
    return Outcome(str(path), "done", time.perf_counter() - start, made=files, summary=made.summary)


@dataclass(frozen=True)
class _Loader:
    """What a worker process needs to know; calling it loads the models, once a process."""

    options: Options
    folder: Path
    jobs: int  # processes that share the processors
    debug: bool

    def __call__(self) -> Callable[[tuple[Path, str | None]], Outcome]:
        """The function that makes the results of one input."""
        from sedtalker.render.parallel import cores, use_cores

        threads = max(1, cores() // self.jobs)
        use_cores(threads)
        work = prepare(self.options, self.folder)
        if "torch" in sys.modules:  # drawing does without
            sys.modules["torch"].set_num_threads(threads)
        return lambda task: _one(work, task[0], self.folder, task[1], self.debug)


def _in_processes(
    paths: list[Path], folder: Path, options: Options, running: BatchConfig, keys: dict[Path, str]
) -> Iterator[Outcome]:
    jobs = min(running.jobs, len(paths))
    load = _Loader(options, folder, jobs, running.debug)
    tasks = [(path, keys.get(path)) for path in paths]
    for (path, _), result in map_in_workers(load, tasks, jobs, lambda task: _remove_leftovers(task[0], folder)):
        if isinstance(result, WorkerDeath):
            yield Outcome(
                str(path),
                "failed",
                reason=f"the process that worked on it {result.reason}: {path}. Use fewer --jobs, or free memory",
            )
        else:
            yield result


def _on_cluster(
    paths: list[Path], folder: Path, options: Options, running: BatchConfig, keys: dict[Path, str]
) -> Iterator[Outcome]:
    """Shares of the files as jobs of Slurm, through submitit; the folder must be on a disk that all nodes see."""
    submitit = require("submitit", "cluster")
    executor = submitit.AutoExecutor(folder=folder / RECORDS / "cluster", cluster=running.cluster)
    executor.update_parameters(name="sedtalker", timeout_min=24 * 60, cpus_per_task=max(1, (os.cpu_count() or 1) // 2))
    shares = [paths[first :: running.jobs] for first in range(min(running.jobs, len(paths)))]
    with executor.batch():
        submitted = [executor.submit(_share, share, folder, options, running, keys) for share in shares]
    for share, job in zip(shares, submitted, strict=True):
        try:
            outcomes = job.result()
        except Exception as error:  # the job was cancelled, or its node died: what it had finished is recorded
            first, *_ = str(error).splitlines() or [type(error).__name__]
            for path in share:
                if path in keys and _finished(path, folder, keys[path]):
                    yield Outcome(str(path), "done", made=_recorded(path, folder))
                else:
                    yield Outcome(str(path), "failed", reason=f"its job of the cluster ended: {path} ({first})")
        else:
            if isinstance(outcomes, SEDTalkerError):
                raise outcomes
            yield from outcomes


def _share(
    paths: list[Path], folder: Path, options: Options, running: BatchConfig, keys: dict[Path, str]
) -> list[Outcome] | SEDTalkerError:
    """One job's files, in a process of their own, so that the death of that process costs one file.

    An error that concerns all files is returned: submitit would raise its traceback.
    """
    try:
        return list(_in_processes(paths, folder, options, replace(running, jobs=1), keys))
    except SEDTalkerError as error:
        return error


def _key(path: Path, options: Options, weights: list[str]) -> str | None:
    """Hash of all that decides a result: the input's bytes, options, weights and the version of this program.

    None where something cannot be read; making the results will say why.
    """
    try:
        if not path.is_file():  # reading a pipe would empty it
            return None
        files = [digest(file) for file in option_files(options, path)]
        described = [sha256(path), type(options).__name__, asdict(options), files, weights, __version__]
    except (OSError, SEDTalkerError):
        return None
    return hashlib.sha256(json.dumps(described, default=str).encode()).hexdigest()


def _weights(options: Options) -> list[str]:
    """What identifies the weights of every model that the options name: hashes, and revisions on the hub."""
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
    """The configuration of a model in a folder or on the hub, and what identifies its weights.

    A folder written here has the hash of its weights in its configuration. Of other folders all files are hashed.
    """
    revision = ""
    if not _is_folder(model) and str(model).count("/") == 1:
        try:
            file = require("huggingface_hub", "hub").hf_hub_download(str(model), "config.json")
        except Exception:  # no such model, no connection, no such package: loading it will say so
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
    """Whether a path is a folder; False too for names that no file can have."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _record_path(path: Path, folder: Path) -> Path:
    return folder / RECORDS / f"{path.name}.json"


def _record(path: Path, folder: Path, key: str | None, results: dict[Path, Path]) -> None:
    """Write down what is about to appear: where each result will be -> where it lies until then."""
    if key is None:
        return
    made = {
        str(final.relative_to(folder)): {"aside": str(temp_path.relative_to(folder)), "sha256": digest(temp_path)}
        for final, temp_path in results.items()
    }
    with atomic_write(_record_path(path, folder)) as temp_path:
        temp_path.write_text(json.dumps({"key": key, "made": made}), encoding="utf-8")


def _finished(path: Path, folder: Path, key: str) -> bool:
    """Whether an earlier run made exactly this, and all of it is still there; what it had no time to rename, is."""
    try:
        record = json.loads(_record_path(path, folder).read_text(encoding="utf-8"))
        return record["key"] == key and all(
            _in_place(folder / name, folder / result["aside"], result["sha256"])
            for name, result in record["made"].items()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _recorded(path: Path, folder: Path) -> list[str]:
    """The results that the record of an input names."""
    record = json.loads(_record_path(path, folder).read_text(encoding="utf-8"))
    return [str(folder / name) for name in record["made"]]


def _in_place(final: Path, temp_path: Path, expected: str) -> bool:
    """Whether a result is there as it was made, if need be after it got its name."""
    if final != temp_path and temp_path.exists() and digest(temp_path) == expected:
        replace_into(temp_path, final)
    return final.exists() and digest(final) == expected


def _remove_leftovers(path: Path, folder: Path) -> None:
    """Delete temporary files (`files.written_whole` names them) of the results of this input."""
    stems = {path.stem, path.stem.replace(".", "_")}
    for temp_path in folder.glob(".*~*"):
        meant = final_name(temp_path).name
        endings = [meant[len(stem) :] for stem in stems if meant.startswith(stem)]
        if meant == temp_path.name or not any(
            end in RESULT_ENDINGS or _SIMPLE_ENDING.fullmatch(end) for end in endings
        ):
            continue
        if temp_path.is_dir():
            shutil.rmtree(temp_path, ignore_errors=True)
        else:
            temp_path.unlink(missing_ok=True)


def _progress(outcomes: Iterator[Outcome], count: int, many: bool) -> Iterator[Outcome]:
    from tqdm import tqdm

    yield from tqdm(outcomes, total=count, desc="files", unit="file", disable=None if many and count > 1 else True)


def _write_report(outcomes: list[Outcome], folder: Path) -> None:
    """The report as JSON, and on screen as a table with the failures last."""
    ordered = sorted(outcomes, key=lambda outcome: outcome.status == "failed")
    counts = {status: sum(outcome.status == status for outcome in ordered) for status in ("done", "kept", "failed")}
    with atomic_write(folder / REPORT) as temp_path:
        temp_path.write_text(
            json.dumps({"counts": counts, "files": [asdict(o) for o in ordered]}, indent=2) + "\n", encoding="utf-8"
        )
    for outcome in ordered:
        print(f"{outcome.status:<7}{outcome.seconds:8.1f} s  {outcome.file}")


def _tell(outcome: Outcome) -> None:
    if outcome.status == "failed":
        print(f"sedtalker: {outcome.reason}", file=sys.stderr)
    else:
        for line in (*outcome.summary, *outcome.made):
            print(line)


def _refuse_equal_names(paths: Iterable[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in paths:
        other = seen.setdefault(path.stem, path)
        if other is not path:
            raise SEDTalkerError(
                f"two inputs of one name: {other} and {path} would write the same results. Use two folders with -o"
            )


@contextmanager
def _no_empty_folder(folder: Path) -> Iterator[None]:
    """Leave no folders behind that were not there before, and in which nothing was made."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        yield
    finally:
        with suppress(OSError):  # one holds something, or was never made
            for place in new:
                place.rmdir()


def _check_writable(folder: Path) -> None:
    """Fail before the work, not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SEDTalkerError(
            f"cannot write {folder}: {error.strerror or error}. Choose another folder with -o, or free space"
        ) from error
