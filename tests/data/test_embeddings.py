import gzip
import os
import pickle
import pickletools
import resource
from collections import OrderedDict, defaultdict
from pathlib import Path

import faiss
import numpy as np
import pytest

from asyncval.core.errors import InvalidData
from asyncval.data.embeddings import read_embeddings, read_scores

VECTORS = np.arange(12, dtype=np.float32).reshape(4, 3) - 5.5
BYTES = VECTORS.tobytes()
IDS = ["007", "b", "Pony/x.txt", "4"]


def pickled(path, value, protocol=4):
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        pytest.param((VECTORS, IDS), id="float32"),
        pytest.param((VECTORS.astype(np.float16), IDS), id="float16"),
        pytest.param((np.asfortranarray(VECTORS), IDS), id="by columns"),
        pytest.param((VECTORS.astype(">f4"), IDS), id="big-endian"),
        pytest.param(([*VECTORS], IDS), id="list of rows"),
        pytest.param((VECTORS, np.array(IDS)), id="ids as an array"),
        pytest.param([VECTORS, [*map(np.str_, IDS)]], id="ids of numpy"),
        pytest.param((VECTORS, np.array(IDS, dtype="S")), id="ids as an array of bytes"),
        pytest.param((VECTORS, [each.encode() for each in IDS]), id="ids as bytes"),
    ],
)
def test_pickles_of_tevatron_and_openmatch_are_read(tmp_path, value, protocol):
    vectors, ids = read_embeddings([pickled(tmp_path / "corpus_emb.0.pkl", value, protocol)])
    np.testing.assert_array_equal(vectors, VECTORS)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert ids == IDS


def test_a_pickle_of_numpy_1_is_read(tmp_path):
    content = pickle.dumps((VECTORS, IDS), protocol=4)
    new, old_name = b"numpy._core.multiarray", b"numpy.core.multiarray"
    old = content.replace(bytes([0x8C, len(new)]) + new, bytes([0x8C, len(old_name)]) + old_name)
    assert old != content
    path = tmp_path / "reps.pt"
    frame = old.index(b"\x95")  # the frame is as much shorter as the name
    size = int.from_bytes(old[frame + 1 : frame + 9], "little") - 1
    path.write_bytes(old[: frame + 1] + size.to_bytes(8, "little") + old[frame + 9 :])
    np.testing.assert_array_equal(read_embeddings([path])[0], VECTORS)


def test_parts_follow_one_another_and_one_without_texts_adds_nothing(tmp_path):
    paths = [
        pickled(tmp_path / "embeddings.query.rank.0", ([], [])),
        pickled(tmp_path / "embeddings.query.rank.1", (VECTORS[:3], IDS[:3])),
        pickled(tmp_path / "embeddings.query.rank.2", (VECTORS[3:].astype(np.float16), IDS[3:])),
    ]
    vectors, ids = read_embeddings(paths)
    np.testing.assert_array_equal(vectors, VECTORS)
    assert ids == IDS


def test_numbers_as_ids_become_strings(tmp_path):
    assert read_embeddings([pickled(tmp_path / "p", (VECTORS, [7, 0, 1, 2]))])[1] == [*"7012"]


@pytest.mark.parametrize("name", ["passage", "query"])
def test_arrays_of_retromae_have_their_ids_beside_them(tmp_path, name):
    np.save(tmp_path / f"{name}.npy", VECTORS)
    lines = "".join(f"{row}\t{each}\t\n" for row, each in enumerate(IDS))
    (tmp_path / f"offset2{name}id.txt").write_text(lines)
    vectors, ids = read_embeddings([tmp_path / f"{name}.npy"])
    np.testing.assert_array_equal(vectors, VECTORS)
    assert ids == IDS


@pytest.mark.parametrize(
    ("name", "ids_name"), [("corpus_embeds", "corpus_ids"), ("query_embeds", "qids")]
)
def test_arrays_of_disentangled_retriever_have_their_ids_in_an_array(tmp_path, name, ids_name):
    np.save(tmp_path / f"{name}.npy", VECTORS)
    for ids in (np.array(IDS), np.array(IDS, dtype="S")):
        np.save(tmp_path / f"{ids_name}.npy", ids)
        assert read_embeddings([tmp_path / f"{name}.npy"])[1] == IDS


NO_TEXT = np.full(16, 0xFF, dtype=np.uint8).view("<U1")
HALF_A_LETTER = np.array(["\ud800", "b", "c", "d"])


@pytest.mark.parametrize(
    "ids",
    [
        pytest.param(np.arange(4.0), id="floats"),
        pytest.param(np.eye(4, dtype=bool)[0], id="booleans"),
        pytest.param(np.arange(4).reshape(4, 1), id="two axes"),
        pytest.param(np.array(7), id="no axis"),
        pytest.param(np.array([b"\xff"] * 4), id="no UTF-8"),
        pytest.param(NO_TEXT, id="no letters"),
        pytest.param(HALF_A_LETTER, id="half a letter"),
    ],
)
def test_ids_that_are_neither_text_nor_whole_numbers_are_refused(tmp_path, ids):
    np.save(tmp_path / "corpus_embeds.npy", VECTORS)
    np.save(tmp_path / "corpus_ids.npy", ids)
    with pytest.raises(InvalidData, match=r"corpus_ids\.npy' has no list of ids: one of text"):
        read_embeddings([tmp_path / "corpus_embeds.npy"])
    with pytest.raises(InvalidData, match=r"p' has no list of ids: one of text"):
        read_embeddings([pickled(tmp_path / "p", (VECTORS, ids))])


def test_an_array_of_ours_is_mapped_and_not_read(tmp_path):
    np.save(tmp_path / "checkpoint-5.passages.npy", VECTORS)
    (tmp_path / "checkpoint-5.passages.ids.txt").write_text("\n".join(IDS))
    vectors, ids = read_embeddings([tmp_path / "checkpoint-5.passages.npy"])
    assert isinstance(vectors.base, np.memmap)
    np.testing.assert_array_equal(vectors, VECTORS)
    assert ids == IDS


@pytest.mark.parametrize("kind", [faiss.IndexFlatIP, faiss.IndexFlatL2])
def test_a_flat_index_of_the_first_asyncval_is_read_without_faiss(tmp_path, kind):
    index = kind(3)
    index.add(VECTORS)
    faiss.write_index(index, str(tmp_path / "index"))
    (tmp_path / "docid").write_text("".join(f"{each}\n" for each in IDS))
    vectors, ids = read_embeddings([tmp_path])
    np.testing.assert_array_equal(vectors, VECTORS)
    assert ids == IDS
    content = (tmp_path / "index").read_bytes()
    for damaged in (content[:-1], content[:20], content + b"\0", b"IxPQ" + content[4:]):
        (tmp_path / "index").write_bytes(damaged)
        with pytest.raises(InvalidData, match="index"):
            read_embeddings([tmp_path])


class Malice:
    """What a pickle says that runs a command when it is opened."""

    def __init__(self, target, how):
        self.target = target
        self.how = how

    def __reduce__(self):
        return {
            "system": (os.system, (f"touch {self.target}",)),
            "eval": (eval, (f"__import__('pathlib').Path({str(self.target)!r}).touch()",)),
            "path": (Path.touch, (self.target,)),
            "numpy": (np.save, (str(self.target), VECTORS)),
        }[self.how]


@pytest.mark.parametrize("how", ["system", "eval", "path", "numpy"])
@pytest.mark.parametrize("reader", [lambda path: read_embeddings([path]), read_scores])
def test_nothing_that_a_pickle_would_run_is_run(tmp_path, how, reader):
    target = tmp_path / "touched.npy"
    value = (VECTORS, [Malice(target, how)])
    path = pickled(tmp_path / "reps.pkl", value)
    with pytest.raises(InvalidData, match=r"reps\.pkl' is a pickle that wants to use .*not run"):
        reader(path)
    assert not target.exists()
    pickle.loads(path.read_bytes())
    assert target.exists() or (tmp_path / "touched.npy.npy").exists()  # it would have been


def array_state(shape=(4, 3), dtype="f4", content=BYTES):
    """Return a pickle of an array with whatever is forged in it, and four ids."""

    class Forged:
        def __reduce__(self):
            make = np.empty(0).__reduce__()[0]
            return (make, (np.ndarray, (0,), b"b"), (1, shape, np.dtype(dtype), False, content))

    return pickle.dumps((Forged(), IDS), protocol=4)


@pytest.mark.parametrize(
    "state",
    [
        {"shape": (400, 300)},
        {"shape": (-4, -3)},
        {"shape": (2**62, 2**62)},
        {"shape": "ab"},
        {"dtype": "O", "content": [1, 2]},
        {"dtype": "M8[s]"},
        {"content": b""},
        {"content": [1.0]},
        {"dtype": [("a", "f4")]},
    ],
    ids=str,
)
def test_an_array_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path, state):
    (tmp_path / "p").write_bytes(array_state(**state))
    with pytest.raises(InvalidData, match="cannot be read as a pickle"):
        read_embeddings([tmp_path / "p"])


@pytest.mark.parametrize(
    "operations",
    [
        b"Nr\xff\xff\xff\x7f.",  # a note under the highest number that there is
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x00.",  # a text of 2**56 bytes
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x00.",  # the same as a bytearray
        b"0.",
        b"R.",
        b"\x94.",
        b"(((.",
        b"K\x01Q.",  # a persistent id
        b"\x82\x01.",  # an extension
        b"cposix\nsystem\n.",
    ],
    ids=str,
)
def test_operations_that_no_pickle_of_ours_has_are_refused(tmp_path, operations):
    (tmp_path / "p").write_bytes(b"\x80\x04" + operations)
    before = peak_kilobytes()
    with pytest.raises(InvalidData, match="/p' "):
        read_embeddings([tmp_path / "p"])
    assert peak_kilobytes() - before < 1 << 20


def peak_kilobytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_an_array_that_is_put_together_as_numpy_does_is_read(tmp_path):
    (tmp_path / "p").write_bytes(array_state())
    np.testing.assert_array_equal(read_embeddings([tmp_path / "p"])[0], VECTORS)


def test_a_pickle_that_breaks_off_anywhere_is_refused_in_words(tmp_path):
    content = pickle.dumps((VECTORS, IDS), protocol=4)
    ends = [position for _, _, position in pickletools.genops(content) if position and position > 1]
    for end in (*ends, len(content) - 1):
        (tmp_path / "p").write_bytes(content[:end])
        with pytest.raises(InvalidData, match="cannot be read as a pickle"):
            read_embeddings([tmp_path / "p"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (VECTORS, "has no embeddings"),
        ((VECTORS, IDS, 1), "has no embeddings"),
        ((VECTORS, IDS[:3]), "4 vectors, but 3 ids"),
        ((VECTORS, {"a": 1}), "no list of ids"),
        ((VECTORS, [None] * 4), "no list of ids"),
        ((VECTORS, ["a", "b", "c", "a"]), "the id 'a' stands twice"),
        ((VECTORS[0], IDS), r"the shape \(3,\)"),
        ((VECTORS.astype(int), IDS), "array of int64"),
        (([VECTORS[0], VECTORS[0][:2]], IDS[:2]), "different dimensions"),
        ((VECTORS, [0.5, 1.5, 2.5, 3.5]), "no list of ids"),
        ((VECTORS, [True, 2, 3, 4]), "no list of ids"),
        (([[[1.0], [1.0, 2.0]]], ["a"]), r"no array \[N, D\]"),
        (([[1.0, 10**400]], ["a"]), "array of object"),
        (([[1.0, "x"]], ["a"]), "array of <U"),
        ((np.where(np.eye(4, 3) == 1, np.nan, VECTORS), IDS), "NaN or infinity"),
        ((VECTORS.astype(np.float64) * 1e39, IDS), "that float32 cannot hold"),
    ],
)
def test_what_is_no_embeddings_is_refused_in_words(tmp_path, value, message):
    with pytest.raises(InvalidData, match=f"(?i){message}") as caught:
        read_embeddings([pickled(tmp_path / "p", value)])
    assert str(tmp_path / "p") in str(caught.value)


def test_parts_of_two_models_are_refused(tmp_path):
    one = pickled(tmp_path / "one", (VECTORS, IDS))
    other = pickled(tmp_path / "other", (VECTORS[:1, :2], ["x"]))
    with pytest.raises(InvalidData, match=r"other' has vectors of 2 dimensions, and .*one' of 3"):
        read_embeddings([one, other])


def test_an_array_of_objects_is_refused(tmp_path):
    np.save(tmp_path / "passage.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(InvalidData, match="cannot be read as an array"):
        read_embeddings([tmp_path / "passage.npy"])


@pytest.mark.parametrize(
    "content", [b"", b"text", b"\x93NUMPY\1\0\2\0((", b"\x93NUMPY\1\0\5\0{1:2}"], ids=str
)
def test_a_file_that_is_no_array_is_refused_in_words(tmp_path, content):
    (tmp_path / "passage.npy").write_bytes(content)
    with pytest.raises(InvalidData, match=r"passage\.npy' cannot be read as an array: "):
        read_embeddings([tmp_path / "passage.npy"])


def test_several_arrays_in_one_file_are_refused(tmp_path):
    with (tmp_path / "passage.npy").open("wb") as file:
        np.savez(file, vectors=VECTORS, ids=np.array(IDS))
    content = (tmp_path / "passage.npy").read_bytes()
    for whole_or_torn in (content, content[:4]):
        (tmp_path / "passage.npy").write_bytes(whole_or_torn)
        with pytest.raises(InvalidData, match=r"passage\.npy' is an \.npz: save each"):
            read_embeddings([tmp_path / "passage.npy"])


@pytest.mark.parametrize("lines", ["1\ta\n", "a\n", "0 a\n"])
def test_ids_of_retromae_must_be_numbered_as_the_rows_are(tmp_path, lines):
    np.save(tmp_path / "passage.npy", VECTORS[:1])
    (tmp_path / "offset2passageid.txt").write_text(lines)
    with pytest.raises(InvalidData, match=r"offset2passageid\.txt', line 1: row 0"):
        read_embeddings([tmp_path / "passage.npy"])


def test_embeddings_without_ids_a_missing_file_and_another_kind_are_refused(tmp_path):
    np.save(tmp_path / "passage.npy", VECTORS)
    with pytest.raises(InvalidData, match=r"no 'passage\.ids\.txt' or 'offset2passageid\.txt'"):
        read_embeddings([tmp_path / "passage.npy"])
    with pytest.raises(InvalidData, match="There is no embeddings file"):
        read_embeddings([tmp_path / "absent"])
    (tmp_path / "text").write_text("0.1 0.2")
    with pytest.raises(InvalidData, match="is no embeddings file"):
        read_embeddings([tmp_path / "text"])
    with pytest.raises(InvalidData, match="without `index` and `docid`"):
        read_embeddings([tmp_path])


SCORES = {"7": {"007": 1.5, "2": -0.25}, "8": {"2": 3.0}}
NUMBERED: defaultdict[int, dict[int, float]] = defaultdict(dict)
NUMBERED[7] = {7: 1.5}


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (SCORES, SCORES),
        (OrderedDict(SCORES), SCORES),
        ({7: {7: np.float32(1.5), 2: np.float64(2)}}, {"7": {"7": 1.5, "2": 2.0}}),
        (NUMBERED, {"7": {"7": 1.5}}),
    ],
)
def test_scores_of_a_teacher_are_read_from_a_pickle_with_ids_as_strings(
    tmp_path, value, expected, pack
):
    (tmp_path / "scores.pkl").write_bytes(pack(pickle.dumps(value)))
    assert read_scores(tmp_path / "scores.pkl") == expected


def test_scores_of_a_teacher_are_read_from_lines_with_or_without_brackets(tmp_path):
    (tmp_path / "scores.tsv").write_text("7\t007\t[1.5]\n7 2 -0.25\n8\t2\t3\n")
    assert read_scores(tmp_path / "scores.tsv") == SCORES


@pytest.mark.parametrize(
    "value",
    [
        [1],
        {},
        {"q": {}},
        {"q": 1.0},
        {"q": {"d": None}},
        {"q": {"d": "high"}},
        {"q": {"d": 10**400}},
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_pickle_without_scores_is_refused(tmp_path, value):
    with pytest.raises(InvalidData, match="has no scores"):
        read_scores(pickled(tmp_path / "p", value))


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_no_finite_number_is_refused_with_its_pair(tmp_path, score):
    message = rf"p' has the score {score} for query '7' and passage 'd': a finite number"
    with pytest.raises(InvalidData, match=message):
        read_scores(pickled(tmp_path / "p", {"7": {"c": 1.0, "d": score}}))


def test_lines_with_an_infinite_score_and_a_file_without_lines_are_refused(tmp_path):
    (tmp_path / "scores.tsv").write_text("7\td\tinf\n")
    with pytest.raises(InvalidData, match="the score inf for query '7'"):
        read_scores(tmp_path / "scores.tsv")
    (tmp_path / "scores.tsv").write_text("\n")
    with pytest.raises(InvalidData, match="has no scores"):
        read_scores(tmp_path / "scores.tsv")


@pytest.mark.parametrize("value", [{0.5: {"d": 1.0}}, {"q": {None: 1.0}}])
def test_scores_of_what_can_be_no_id_are_refused(tmp_path, value):
    with pytest.raises(InvalidData, match="no list of ids"):
        read_scores(pickled(tmp_path / "p", value))
