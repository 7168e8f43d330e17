import threading

from ezmsg.core.recorder.labels import TEXT_LIMIT, Labels


def test_a_text_keeps_its_number():
    labels = Labels()
    assert labels.code("fft") == labels.code("fft") != labels.code("fit")
    assert labels.text(labels.code("fit")) == "fit"
    assert labels.code("") == 0


def test_new_texts_can_be_asked_for():
    labels = Labels()
    before = len(labels)
    code = labels.code("fft")
    assert labels.since(before) == {code: "fft"}


def test_beyond_the_limit_texts_are_one_and_counted():
    labels = Labels(limit=3)
    known = labels.code("known")
    assert labels.text(labels.code("one too many")) == "…other"
    assert labels.code("another") == labels.code("one too many")
    assert labels.code("known") == known
    assert labels.overflowed == 3


def test_what_users_say_leaves_room_for_what_may_not_be_missing():
    labels = Labels(limit=64)
    for number in range(100):
        labels.code(f"trial {number}", is_free=True)
    assert labels.text(labels.code("trial 100", is_free=True)) == "…other"
    assert labels.text(labels.code("trial 0", is_free=True)) == "trial 0"
    assert labels.text(labels.code("ValueError")) == "ValueError"


def test_a_long_text_is_cut():
    labels = Labels()
    code = labels.code("x" * 1000)
    assert labels.text(code) == "x" * TEXT_LIMIT
    assert labels.code("x" * 1000) == code


def test_a_text_that_cannot_travel_becomes_one_that_can():
    labels = Labels()
    code = labels.code("of\udcff")
    assert (labels.text(code), labels.code("of\udcff")) == ("of?", code)


def test_threads_agree_on_numbers():
    labels = Labels()
    found: list[dict[str, int]] = []
    threads = [
        threading.Thread(target=lambda: found.append({str(n): labels.code(str(n)) for n in range(500)}))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(codes == found[0] for codes in found)
    assert all(labels.text(code) == text for text, code in found[0].items())
