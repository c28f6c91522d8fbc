"""A test collection: query sets with their judgements, and a corpus, checked as a whole."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from asyncval.core.errors import InvalidData, InvalidOption
from asyncval.core.types import QuerySet, Text
from asyncval.data.files import digest_of, passage_files, plain_stem, require_text_format
from asyncval.data.qrels import read_qrels


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The passage files, in reading order, and how many passages they have.

    `spaced_id` is the first id with white space in it, empty where there is none.
    """

    files: tuple[Path, ...]
    digest: str
    num_passages: int
    spaced_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """Query sets and a corpus that fit each other; `remarks` is what a user should know."""

    query_sets: tuple[QuerySet, ...]
    corpus: Corpus
    remarks: tuple[str, ...] = ()


def load_query_sets(query_files: Sequence[Path], qrel_files: Sequence[Path]) -> list[QuerySet]:
    """Read all query files and the judgements for each.

    Args:
        query_files: One or more.
        qrel_files: One for all, or one for each query file in the same order.

    Raises:
        InvalidOption: The two numbers do not fit.
        InvalidData: A file cannot be used; an id stands twice.
    """
    if not query_files:
        raise InvalidOption("--query_file: give at least one file.")
    if len(qrel_files) not in (1, len(query_files)):
        raise InvalidOption(
            f"--qrel_file: {len(qrel_files)} files for {len(query_files)} query files. Give one "
            "for all, or one for each in the same order."
        )
    qrels = [*qrel_files] * len(query_files) if len(qrel_files) == 1 else [*qrel_files]
    read = {path: read_qrels(path) for path in dict.fromkeys(qrels)}
    names = _set_names(query_files)
    return [
        QuerySet(
            name=name,
            path=path,
            qrels_path=qrels_path,
            queries=tuple(_unique(read_texts(path, option="--query_file"), path)),
            judgements=read[qrels_path],
        )
        for name, path, qrels_path in zip(names, query_files, qrels, strict=True)
    ]


def read_texts(path: Path, *, option: str) -> Iterator[Text]:
    """Yield the texts of one file in whichever format it is."""
    return require_text_format(path, option=option).read(path)


def read_passages(files: Sequence[Path]) -> Iterator[Text]:
    """Yield the passages of all files, in order."""
    for path in files:
        yield from read_texts(path, option="--candidate_dir")


def load_collection(
    *, query_files: Sequence[Path], qrel_files: Sequence[Path], candidates: Sequence[Path]
) -> Collection:
    """Read and check everything that a validation needs: one pass over the corpus.

    Raises:
        InvalidOption, InvalidData: It cannot be used as given.
    """
    query_sets = load_query_sets(query_files, qrel_files)
    files = tuple(passage_files(candidates))
    passage_ids: set[str] = set()
    spaced = ""
    for path in files:
        for passage in read_texts(path, option="--candidate_dir"):
            if passage.id in passage_ids:
                raise InvalidData(
                    f"{str(path)!r}: the passage id {passage.id!r} stands twice in the corpus."
                )
            passage_ids.add(passage.id)
            if not spaced and len(passage.id.split()) != 1:
                spaced = passage.id
    if not passage_ids:
        raise InvalidData("--candidate_dir: there is no passage in it.")
    corpus = Corpus(
        files=files,
        digest=digest_of(files),
        num_passages=len(passage_ids),
        spaced_id=spaced,
    )
    remarks = [remark for each in query_sets for remark in _check(each, passage_ids)]
    return Collection(query_sets=tuple(query_sets), corpus=corpus, remarks=tuple(remarks))


def _set_names(query_files: Sequence[Path]) -> list[str]:
    stems = [plain_stem(path) for path in query_files]
    if len(set(stems)) < len(stems):
        stems = [f"{path.resolve().parent.name}.{plain_stem(path)}" for path in query_files]
    twice = [name for name, count in Counter(stems).items() if count > 1]
    if twice:
        raise InvalidOption(
            f"--query_file: two files would both be called {twice[0]!r} in the results. Rename one."
        )
    return stems


def _unique(texts: Iterator[Text], path: Path) -> Iterator[Text]:
    seen: set[str] = set()
    for text in texts:
        if text.id in seen:
            raise InvalidData(f"{str(path)!r}: the query id {text.id!r} stands twice.")
        seen.add(text.id)
        yield text
    if not seen:
        raise InvalidData(f"--query_file: the file {str(path)!r} is empty.")


def _check(query_set: QuerySet, passage_ids: set[str]) -> Iterator[str]:
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
    relevant = {
        passage_id
        for query_id in query_set.judged
        for passage_id, grade in query_set.judgements[query_id].items()
        if grade > 0
    }
    missing = sorted(relevant - passage_ids)
    if relevant and len(missing) == len(relevant):
        raise InvalidData(
            f"--qrel_file: none of the {len(relevant)} relevant passages in {qrels!r} is in the "
            f"corpus; the first is {missing[0]!r}. Is it the right --candidate_dir?"
        )
    if missing:
        yield (
            f"{len(missing)} of {len(relevant)} relevant passages in {qrels!r} are not in the "
            f"corpus, for example {missing[0]!r}: no checkpoint can find them."
        )
