"""A test collection: query sets, their judgements and their corpora, checked as a whole."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.core.types import QuerySet, Text, TextForm
from asyncval.data.duplicates import SeenIds, first_repeated
from asyncval.data.folders import corpus_in, qrels_in, queries_in
from asyncval.data.ir_datasets import dataset_name
from asyncval.data.qrels import read_qrels
from asyncval.data.sources import digest_of, passage_files, place_stem, read_texts

QUERIES = TextForm(is_query=True)
PASSAGES = TextForm()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlaces:
    """Where a query set, its judgements and the passages are that it is asked of."""

    name: str
    queries: Path
    qrels: Path
    candidates: tuple[Path, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Where the passages are, in reading order, and how many there are.

    `spaced_id` is the first id with white space in it, empty where there is none.
    """

    files: tuple[Path, ...]
    digest: str
    num_passages: int
    spaced_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Query sets and corpora that fit each other; `remarks` is what a user should know.

    `corpora` is by name, which is empty where there is only one.
    """

    query_sets: tuple[QuerySet, ...]
    corpora: Mapping[str, Corpus]
    remarks: tuple[str, ...] = ()


def tasks_on_one_corpus(
    query_files: Sequence[Path], qrel_files: Sequence[Path], candidates: Sequence[Path]
) -> list[TaskPlaces]:
    """Return one task for each query file.

    Args:
        query_files: One or more.
        qrel_files: One for all, or one for each query file in the same order.
        candidates: The passages.

    Raises:
        InvalidOption: The two numbers do not fit, or two files have the same name.
    """
    if not query_files:
        raise InvalidOption("--query_file: give at least one file.")
    if len(qrel_files) not in (1, len(query_files)):
        raise InvalidOption(
            f"--qrel_file: {len(qrel_files)} files for {len(query_files)} query files. Give one "
            "for all, or one for each in the same order."
        )
    qrels = [*qrel_files] * len(query_files) if len(qrel_files) == 1 else qrel_files
    return [
        TaskPlaces(name=name, queries=path, qrels=qrels_path, candidates=tuple(candidates))
        for name, path, qrels_path in zip(_set_names(query_files), query_files, qrels, strict=True)
    ]


def task_in_folder(name: str, folder: Path) -> TaskPlaces:
    """Return the task of a folder with queries, passages and judgements, as BEIR's.

    Raises:
        InvalidData: It has no passages.
    """
    if not folder.is_dir() and dataset_name(folder) is None:
        raise InvalidData(f"--task {name}: there is no folder {str(folder)!r}.")
    candidates = (corpus_in(folder, option="--task"),)
    return TaskPlaces(name=name, queries=folder, qrels=folder, candidates=candidates)


def load_query_sets(tasks: Sequence[TaskPlaces], *, form: TextForm = QUERIES) -> list[QuerySet]:
    """Read the queries and the judgements of all tasks.

    Where the queries are a folder's, as BEIR's, which has those of all its splits in one file,
    only those with judgements are taken.

    Raises:
        InvalidData: A file cannot be used; an id stands twice.
    """
    qrels = {task.qrels: qrels_in(task.qrels) for task in tasks}
    read = {path: read_qrels(path) for path in dict.fromkeys(qrels.values())}
    query_sets = []
    for task in tasks:
        path, judgements = queries_in(task.queries), read[qrels[task.qrels]]
        queries = _unique(read_texts(path, option="--query_file", form=form), path)
        digest = digest_of([path], form)
        if path != task.queries:
            queries = [query for query in queries if query.id in judgements]
            digest = _both(digest, digest_of([qrels[task.qrels]]))
        query_sets.append(
            QuerySet(
                name=task.name,
                path=task.queries,
                qrels_path=qrels[task.qrels],
                queries=tuple(queries),
                judgements=judgements,
                digest=digest,
            )
        )
    return query_sets


def _both(one: str, other: str) -> str:
    return hashlib.sha256(f"{one} {other}".encode()).hexdigest()


def read_passages(files: Sequence[Path], *, form: TextForm = PASSAGES) -> Iterator[Text]:
    """Yield the passages of all files, in order."""
    for path in files:
        yield from read_texts(path, option="--candidate_dir", form=form)


def load_collection(
    tasks: Sequence[TaskPlaces],
    *,
    query_form: TextForm = QUERIES,
    passage_form: TextForm = PASSAGES,
) -> Collection:
    """Read and check everything that a validation needs: one pass over each corpus.

    Tasks with the same passages share a corpus, which has the name of the first of them.

    Raises:
        InvalidOption, InvalidData: It cannot be used as given.
    """
    query_sets = load_query_sets(tasks, form=query_form)
    groups: dict[tuple[Path, ...], list[QuerySet]] = {}
    for task, query_set in zip(tasks, query_sets, strict=True):
        groups.setdefault(task.candidates, []).append(query_set)
    corpora: dict[str, Corpus] = {}
    names: dict[str, str] = {}
    remarks: list[str] = []
    for candidates, asked in groups.items():
        wanted = {passage_id for each in asked for passage_id in _relevant(each)}
        files = tuple(passage_files(candidates, form=passage_form))
        corpus, found = _read_corpus(files, passage_form, wanted)
        corpora[asked[0].name if len(groups) > 1 else ""] = corpus
        names |= {each.name: next(reversed(corpora)) for each in asked}
        remarks += [remark for each in asked for remark in _check(each, found)]
    return Collection(
        query_sets=tuple(replace(each, corpus=names[each.name]) for each in query_sets),
        corpora=corpora,
        remarks=tuple(remarks),
    )


def _read_corpus(
    files: tuple[Path, ...], form: TextForm, wanted: set[str]
) -> tuple[Corpus, set[str]]:
    """Read all passages; return the corpus, and which of the wanted passages it has."""
    seen = SeenIds()
    found: set[str] = set()
    spaced = ""
    for passage in read_passages(files, form=form):
        seen.add(passage.id)
        if passage.id in wanted:
            found.add(passage.id)
        if not spaced and len(passage.id.split()) != 1:
            spaced = passage.id
    if not len(seen):
        raise InvalidData("--candidate_dir: there is no passage in it.")
    corpus = Corpus(
        files=files, digest=digest_of(files, form), num_passages=len(seen), spaced_id=spaced
    )
    suspects = seen.suspects()
    if suspects:
        _refuse_repeated(files, form, suspects)
    return corpus, found


def _refuse_repeated(files: Sequence[Path], form: TextForm, suspects: frozenset[int]) -> None:
    """Raise the error for the first passage whose id was there before, if there is one."""
    ids = (
        (path, text.id)
        for path in files
        for text in read_texts(path, option="--candidate_dir", form=form)
    )
    repeated = first_repeated(ids, suspects)
    if repeated is not None:
        path, text_id = repeated
        raise InvalidData(f"{str(path)!r}: the passage id {text_id!r} stands twice in the corpus.")


def _set_names(query_files: Sequence[Path]) -> list[str]:
    stems = [place_stem(path) for path in query_files]
    if len(set(stems)) < len(stems):
        stems = [f"{path.absolute().parent.name}.{place_stem(path)}" for path in query_files]
    twice = [name for name, count in Counter(stems).items() if count > 1]
    if twice:
        raise InvalidOption(
            f"--query_file: two files would both be called {twice[0]!r} in the results. Rename one."
        )
    return stems


def _unique(texts: Iterator[Text], path: Path) -> list[Text]:
    queries: dict[str, Text] = {}
    for text in texts:
        if text.id in queries:
            raise InvalidData(f"{str(path)!r}: the query id {text.id!r} stands twice.")
        queries[text.id] = text
    if not queries:
        raise InvalidData(f"--query_file: the file {str(path)!r} is empty.")
    return list(queries.values())


def _relevant(query_set: QuerySet) -> set[str]:
    """Return the relevant passages of the queries that the mean goes over."""
    return {
        passage_id
        for query_id in query_set.judged
        for passage_id, grade in query_set.judgements[query_id].items()
        if grade > 0
    }


def _check(query_set: QuerySet, found: set[str]) -> Iterator[str]:
    """Yield what is odd about a query set; refuse one that can only score nothing."""
    queries, qrels = str(query_set.path), str(query_set.qrels_path)
    judged = set(query_set.judged)
    if not judged:
        raise InvalidData(
            f"--qrel_file: none of the {len(query_set.judgements)} queries in {qrels!r} is in "
            f"{queries!r}; the first is {next(iter(query_set.judgements))!r}."
        )
    unjudged = [query.id for query in query_set.queries if query.id not in judged]
    if unjudged:
        yield (
            f"{len(unjudged)} of {len(query_set.queries)} queries in {queries!r} have no "
            f"judgement, for example {unjudged[0]!r}: they are searched, and not scored."
        )
    elsewhere = [query_id for query_id in query_set.judgements if query_id not in judged]
    if elsewhere:
        yield (
            f"{len(elsewhere)} of {len(query_set.judgements)} judged queries in {qrels!r} are not "
            f"in {queries!r}, for example {elsewhere[0]!r}: the mean does not count them."
        )
    relevant = _relevant(query_set)
    if not relevant:
        raise InvalidData(
            f"--qrel_file: no passage in {qrels!r} is relevant to a query in {queries!r}: every "
            "score would be 0. Relevant is a grade of 1 or more."
        )
    missing = sorted(relevant - found)
    if len(missing) == len(relevant):
        raise InvalidData(
            f"--qrel_file: none of the {len(relevant)} relevant passages in {qrels!r} is in the "
            f"corpus; the first is {missing[0]!r}. Is it the right --candidate_dir?"
        )
    if missing:
        yield (
            f"{len(missing)} of {len(relevant)} relevant passages in {qrels!r} are not in the "
            f"corpus, for example {missing[0]!r}: no checkpoint can find them."
        )
