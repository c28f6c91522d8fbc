import json
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tokenizers import Tokenizer as FastTokenizer
from tokenizers import models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from asyncval.core.errors import CheckpointBroken, CheckpointUnsupported, InvalidData
from asyncval.core.types import Text
from asyncval.retrieval import tokens as tokens_module
from asyncval.retrieval.tokens import Recipe, TextIds, TokenCache, Tokenizer
from tests.models import make_sentences, make_tokenizer
from tests.retrieval.stores import make_texts

CLS, SEP = 2, 3
MARK = Recipe(max_length=16)


@pytest.fixture(scope="module")
def tokenizer(bert_folder):
    return Tokenizer(str(bert_folder))


@pytest.fixture
def cache(tmp_path):
    return TokenCache(tmp_path / "cache")


def store_of(cache, tokenizer, texts, *, content="digest", recipe=MARK, **more):
    return cache.get(
        content=content, texts=lambda: iter(texts), tokenizer=tokenizer, recipe=recipe, **more
    )


def ids_of(store):
    return [store.ids[a:b].tolist() for a, b in zip(store.offsets, store.offsets[1:], strict=False)]


@pytest.mark.parametrize("max_length", [3, 8, 16, 40])
def test_the_ids_are_those_of_the_tokenizers_own_call(bert_folder, cache, tokenizer, max_length):
    sentences = [*make_sentences(50), "", "Ocean RIVER", "a" * 60, "snowman ☃"]
    recipe = Recipe(max_length=max_length)
    store = store_of(cache, tokenizer, make_texts(sentences), recipe=recipe)
    reference = AutoTokenizer.from_pretrained(bert_folder)
    expected = reference(sentences, truncation=True, max_length=max_length)["input_ids"]
    assert ids_of(store) == expected
    assert store.lengths.tolist() == [len(ids) for ids in expected]
    assert list(store.text_ids) == [f"d{number}" for number in range(len(sentences))]
    assert len(store) == len(sentences)


def test_more_texts_than_are_taken_at_once_keep_their_order(cache, tokenizer, monkeypatch):
    monkeypatch.setattr(tokens_module, "TEXTS_AT_ONCE", 7)
    texts = make_texts(make_sentences(50))
    progress: list[int] = []
    store = store_of(cache, tokenizer, texts, on_progress=progress.append)
    assert ids_of(store) == tokenizer.encode(texts, MARK)
    assert progress == [7, 14, 21, 28, 35, 42, 49, 50]


def test_a_prefix_stands_before_every_text(cache, tokenizer):
    texts = make_texts(["ocean", "river"])
    store = store_of(cache, tokenizer, texts, recipe=Recipe(max_length=16, prefix="query : "))
    with_prefix = make_texts(["query : ocean", "query : river"])
    assert ids_of(store) == tokenizer.encode(with_prefix, MARK)


def test_a_prefix_stands_before_the_title(tokenizer):
    text = Text(id="1", text="river", title="ocean")
    recipe = Recipe(max_length=16, prefix="query ")
    assert tokenizer.encode([text], recipe) == tokenizer.encode(
        make_texts(["query ocean river"]), MARK
    )


def test_lower_case_is_applied_to_prefix_and_text():
    assert Recipe(max_length=9, prefix="A: ", lower_case=True).apply("ÉB") == "a: éb"
    assert Recipe(max_length=9, prefix="A: ").apply("ÉB") == "A: ÉB"


@pytest.fixture
def with_end(tmp_path):
    """A tokenizer that knows an end-of-text token, which it does not add itself."""
    tokenizer = make_tokenizer()
    tokenizer.eos_token = ":"
    tokenizer.save_pretrained(tmp_path / "with_end")
    return Tokenizer(str(tmp_path / "with_end"))


@pytest.mark.parametrize("contents", [["ocean", "river " * 9], [(5,), (6,) * 9]])
def test_an_appended_end_follows_the_special_tokens_and_counts(with_end, contents):
    texts, end = make_texts(contents), make_tokenizer().convert_tokens_to_ids(":")
    recipe = Recipe(max_length=6, append_eos=True)
    short, long = with_end.encode(texts, recipe)
    assert short == [*with_end.encode(texts[:1], MARK)[0], end]
    assert long == [*with_end.encode(texts[1:], Recipe(max_length=5))[0], end]
    assert len(long) == 6


def test_an_end_that_the_tokenizer_does_not_have_cannot_be_appended(tokenizer):
    with pytest.raises(CheckpointUnsupported, match="--append_eos_token"):
        tokenizer.encode(make_texts(["ocean"]), Recipe(max_length=9, append_eos=True))


def test_special_tokens_may_be_left_out(tokenizer):
    bare = Recipe(max_length=4, special_tokens=False)
    for contents in (["ocean", "river " * 9], [(5,), (6,) * 9]):
        whole = tokenizer.encode(make_texts(contents), Recipe(max_length=6))
        assert tokenizer.encode(make_texts(contents), bare) == [ids[1:-1] for ids in whole]


def test_token_ids_get_the_special_tokens_and_are_cut(cache, tokenizer):
    texts = make_texts([(10, 11), (), tuple(range(10, 40))])
    store = store_of(cache, tokenizer, texts, recipe=Recipe(max_length=6))
    assert ids_of(store) == [[CLS, 10, 11, SEP], [CLS, SEP], [CLS, 10, 11, 12, 13, SEP]]


@pytest.mark.parametrize(
    "contents", [[(CLS, 10, SEP), (CLS, 11, 12, SEP)], [(CLS, 10), (), (CLS,)]]
)
def test_token_ids_that_have_the_special_tokens_already_are_refused(tokenizer, contents):
    with pytest.raises(InvalidData, match=r"'d0' and all others begin with \[CLS\].*stand twice"):
        tokenizer.encode(make_texts(contents), MARK)
    bare = Recipe(max_length=16, special_tokens=False)
    assert tokenizer.encode(make_texts(contents), bare) == [[*ids] for ids in contents]


def test_token_ids_of_which_one_begins_as_with_a_special_token_are_taken(tokenizer):
    [odd, plain] = tokenizer.encode(make_texts([(CLS, 10), (10,)]), MARK)
    assert (odd, plain) == ([CLS, CLS, 10, SEP], [CLS, 10, SEP])


def test_token_ids_that_end_in_what_stands_behind_every_text_are_refused(tmp_path):
    whole = make_tokenizer()
    whole.backend_tokenizer.post_processor = TemplateProcessing(  # as T5's
        single="$A [SEP]", special_tokens=[("[SEP]", SEP)]
    )
    whole.save_pretrained(tmp_path / "tokenizer")
    tokenizer = Tokenizer(str(tmp_path / "tokenizer"))
    with pytest.raises(InvalidData, match=r"all others end in \[SEP\]"):
        tokenizer.encode(make_texts([(10, SEP), (11, 12, SEP)]), MARK)
    assert tokenizer.encode(make_texts([(10, SEP), (11,)]), MARK) == [[10, SEP, SEP], [11, SEP]]


def test_token_ids_give_what_their_text_gives(tokenizer):
    sentences = make_sentences(30)
    bare = [ids[1:-1] for ids in tokenizer.encode(make_texts(sentences), Recipe(max_length=99))]
    for max_length in (4, 16):
        recipe = Recipe(max_length=max_length)
        assert tokenizer.encode(make_texts(map(tuple, bare)), recipe) == tokenizer.encode(
            make_texts(sentences), recipe
        )


def test_token_ids_of_another_tokenizer_are_refused(cache, tokenizer):
    with pytest.raises(InvalidData, match="text 'd1' has the token id 30521"):
        store_of(cache, tokenizer, make_texts([(5,), (30521,)]))


def test_a_prefix_before_token_ids_is_refused(cache, tokenizer):
    with pytest.raises(InvalidData, match="'query: ' cannot be put before"):
        store_of(
            cache, tokenizer, make_texts([(5,)]), recipe=Recipe(max_length=9, prefix="query: ")
        )


@pytest.mark.parametrize("contents", [["ocean", (5,)], [(5,), "ocean"]])
def test_texts_of_both_forms_are_refused(cache, tokenizer, contents):
    with pytest.raises(InvalidData, match="use one form"):
        store_of(cache, tokenizer, make_texts(contents))


def refuse_to_read():
    raise AssertionError("the texts were read again")


def test_texts_that_were_tokenised_are_not_read_again_also_by_another_process(
    cache, tokenizer, tmp_path, bert_folder
):
    first = store_of(cache, tokenizer, make_texts(make_sentences(20)))
    again = TokenCache(tmp_path / "cache").get(
        content="digest",
        texts=refuse_to_read,
        tokenizer=Tokenizer(str(bert_folder)),
        recipe=Recipe(max_length=16),
    )
    assert ids_of(again) == ids_of(first)
    assert list(again.text_ids) == list(first.text_ids)


@pytest.mark.parametrize(
    "change",
    [
        {"content": "other"},
        {"recipe": Recipe(max_length=17)},
        {"recipe": Recipe(max_length=16, prefix="a")},
        {"recipe": Recipe(max_length=16, lower_case=True)},
        {"recipe": Recipe(max_length=16, special_tokens=False)},
        {"recipe": Recipe(max_length=16, append_eos=True)},
    ],
)
def test_whatever_the_tokens_depend_on_makes_a_store_of_its_own(cache, with_end, change):
    store_of(cache, with_end, make_texts(["ocean"]))
    changed = store_of(cache, with_end, make_texts(["river", "storm"]), **change)
    assert len(changed) == 2


def test_another_tokenizer_makes_a_store_of_its_own(cache, tokenizer, large_tokenizer):
    store_of(cache, tokenizer, make_texts(["ocean"]))
    assert ids_of(store_of(cache, large_tokenizer, make_texts(["word5"]))) == [[6]]


@pytest.fixture(scope="module")
def large_tokenizer(tmp_path_factory):
    """A tokenizer of more ids than two bytes can hold, without special tokens around a text."""
    folder = tmp_path_factory.mktemp("large")
    vocabulary = {"[UNK]": 0} | {f"word{number}": number + 1 for number in range(70_000)}
    fast = FastTokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=fast, unk_token="[UNK]").save_pretrained(folder)
    return Tokenizer(str(folder))


def test_ids_that_two_bytes_cannot_hold_get_four(cache, tokenizer, large_tokenizer):
    store = store_of(cache, large_tokenizer, make_texts(["word69999 word1", "word65535"]))
    assert store.ids.dtype == np.uint32
    assert ids_of(store) == [[70_000, 2], [65_536]]
    assert store_of(cache, tokenizer, make_texts(["ocean"])).ids.dtype == np.uint16


def test_texts_without_a_single_token_make_a_store_too(cache, large_tokenizer):
    store = store_of(cache, large_tokenizer, make_texts(["", " "]))
    assert store.lengths.tolist() == [0, 0]


def test_a_tokenizer_that_does_not_know_most_tokens_is_the_wrong_one(cache, large_tokenizer):
    texts = make_texts(["these words are unknown", "word1"])
    for _ in range(2):  # found again in the cache, it is as wrong as before
        with pytest.raises(CheckpointBroken, match="80% of all tokens are unknown"):
            store_of(cache, large_tokenizer, texts)


def test_a_few_unknown_tokens_are_no_reason_to_stop(cache, large_tokenizer):
    store = store_of(cache, large_tokenizer, make_texts(["word1 word2 unknown", "word3"]))
    assert store.unknown_rate == 0.25


def test_two_that_make_the_same_store_at_once_both_get_it(cache, tokenizer, tmp_path):
    together = threading.Barrier(4)

    def texts():
        yield from make_texts(make_sentences(30))
        together.wait(timeout=10)  # all have begun before one is done

    def make(_):
        return cache.get(content="same", texts=texts, tokenizer=tokenizer, recipe=MARK)

    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(make, range(4)))
    assert all(ids_of(store) == ids_of(stores[0]) for store in stores)
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1


def test_a_store_that_breaks_off_leaves_nothing_and_is_made_anew(cache, tokenizer, tmp_path):
    def texts():
        yield from make_texts(["ocean"])
        raise InvalidData("line 2")

    with pytest.raises(InvalidData):
        cache.get(content="digest", texts=texts, tokenizer=tokenizer, recipe=MARK)
    assert list((tmp_path / "cache" / "tokens").iterdir()) == []
    assert len(store_of(cache, tokenizer, make_texts(["ocean", "river"]))) == 2


def test_a_folder_without_a_tokenizer_is_unsupported_with_the_flag_that_helps(tmp_path):
    with pytest.raises(CheckpointUnsupported, match="--tokenizer_name_or_path"):
        Tokenizer(str(tmp_path))


def test_text_ids_of_all_scripts_come_back_one_at_a_time_and_in_slices():
    ids = ["a", "é", "日本", "", "0007"]
    found = TextIds.of(ids)
    assert [found[place] for place in range(len(ids))] == list(found) == ids
    assert list(found[1:3]) == ["é", "日本"]
    assert found.index("日本") == 2


def test_some_consecutive_texts_of_a_store_are_a_store(cache, tokenizer):
    store = store_of(cache, tokenizer, make_texts(make_sentences(20)))
    some = store[5:9]
    assert len(some) == 4
    assert ids_of(some) == ids_of(store)[5:9]
    assert some.lengths.tolist() == store.lengths.tolist()[5:9]
    assert list(some.text_ids) == list(store.text_ids)[5:9]
    assert some.text_ids[-1] == "d8"
    assert len(store[15:99]) == 5
    assert len(store[7:7]) == len(store[9:3]) == 0
    with pytest.raises(IndexError):
        some.text_ids[4]


def test_ids_of_any_length_are_kept_as_they_are(cache, tokenizer):
    names = ["", "7", "x" * 3000, "ü☃", " a\t", "007"]
    texts = [Text(id=name, text="ocean") for name in names]
    assert list(store_of(cache, tokenizer, texts).text_ids) == names


def test_beyond_its_limit_the_cache_forgets_what_nobody_uses(tmp_path, tokenizer):
    texts = make_texts(make_sentences(20))
    for content in ("one", "two", "three"):
        cache = TokenCache(tmp_path / "cache", max_bytes=1)  # as another process each time
        store = store_of(cache, tokenizer, texts, content=content)
        again = store_of(cache, tokenizer, texts, content=f"{content} too")
        assert len(store) == len(again) == 20
        assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 2
        for descriptor in cache._held.values():  # as when that process ends
            os.close(descriptor)


@pytest.mark.parametrize("length", [1, 2])
def test_a_length_that_special_tokens_fill_is_refused(tokenizer, length):
    with pytest.raises(InvalidData, match="leaves no room for a text beside 2 special tokens"):
        tokenizer.encode([Text(id="1", text="ocean river")], Recipe(max_length=length))


@pytest.mark.parametrize(
    "changed", [{"truncation_side": "left"}, {"eos_token": "[PAD]"}], ids=["side", "end of text"]
)
def test_what_only_the_tokenizers_configuration_says_makes_other_tokens(
    cache, bert_folder, tmp_path, changed
):
    """Both tokenizers have the same `tokenizer.json`."""
    folder = tmp_path / "tokenizer"
    shutil.copytree(bert_folder, folder)
    path = folder / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), "eos_token": "[SEP]"}
    path.write_text(json.dumps(settings))
    texts, recipe = make_texts(["ocean river storm light"]), Recipe(max_length=4, append_eos=True)
    before = ids_of(store_of(cache, Tokenizer(str(folder)), texts, recipe=recipe))
    path.write_text(json.dumps({**settings, **changed}))
    after = ids_of(store_of(cache, Tokenizer(str(folder)), texts, recipe=recipe))
    assert before != after
