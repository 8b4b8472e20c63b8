from failscape.web.label_keys import label_keys


def test_digits_come_first_and_then_letters_without_u() -> None:
    keys = label_keys([f"class {i}" for i in range(40)])
    assert "".join(keys[:10]) == "1234567890"
    assert "".join(keys) == "1234567890abcdefghijklmnopqrstvwxyz"
    assert keys[35:] == ("",) * 5
    assert len(keys) == 40


def test_a_class_that_is_called_like_a_key_has_it() -> None:
    assert label_keys([str(i) for i in range(10)]) == tuple("0123456789")
    assert label_keys(["A", "B", "1"]) == ("a", "b", "1")
    # U takes back a label, so no class has it, and then none has its own name.
    assert label_keys(["s", "u"]) == ("1", "2")
    assert label_keys(["a", "A"]) == ("1", "2")
