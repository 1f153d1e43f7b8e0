r"""Reading and writing answers in \boxed{}."""

from __future__ import annotations

import pytest

from elrea.data.sources.boxed import concluded, last_boxed, number, written_out


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} and then \boxed{ \frac{1}{2} }", r"\frac{1}{2}"),
        (r"\boxed{\left\{ x \right\}}", r"\left\{ x \right\}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"$\boxed 7$", "7"),
        (r"it is $\boxed 12.$", "12"),
        (r"\(\boxed5\)", "5"),
        (r"\boxed{3}, not \fbox{4}", "4"),
        (r"\fbox{3}", "3"),
        (r"\boxed{}", None),
        (r"\boxed{5", None),
        (r"\boxed", None),
        ("no box", None),
    ],
)
def test_the_last_box_is_the_answer(text, answer):
    assert last_boxed(text) == answer


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        (" 1,080 ", "1080"),
        ("$51.0", "51"),
        ("-3", "-3"),
        ("−3.50", "-3.5"),
        (".5", "0.5"),
        ("-.5", "-0.5"),
        ("100", "100"),
        ("-0.0", "0"),
        ("12.5%", "12.5"),
        ("109,200,000", "109200000"),
        ("- 2", "-2"),
        ("$ 45", "45"),
        ("93,75", None),  # 93.75, or two numbers
        ("- 2,2", None),
        ("1000,000", None),
        ("3 4", None),
        ("3 apples", None),
        ("1/2", None),
        ("", None),
        (".", None),
    ],
)
def test_a_number_has_one_normal_form(text, plain):
    assert number(text) == plain


def test_a_response_ends_with_its_box():
    assert concluded("2 + 3 = 5\n", "5") == "2 + 3 = 5\nThe answer is \\boxed{5}"
    assert concluded("", "5") == "The answer is \\boxed{5}"
    assert concluded(r"So $\boxed{5}$.", "5") == r"So $\boxed{5}$."
    assert concluded(r"Not \boxed{4}", "5").endswith(r"\boxed{5}")
    # Another form of the box is not enough, and earlier boxes do not count.
    assert concluded(r"$\boxed 5$", "5").endswith(r"\boxed{5}")
    assert concluded(r"\boxed{3} or \boxed 5.", "5").endswith(r"\boxed{5}")
    assert concluded(r"\boxed{3}, not \fbox{4}", "4").endswith(r"\boxed{4}")
    assert last_boxed(concluded("", "")) is None


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("1 billion km", "1000000000 km"),
        ("1.5 Million", "1500000"),
        ("1,200 lakhs", "120000000"),
        ("2 hundred thousand", "200000"),
        ("3 dozen eggs", "36 eggs"),
        ("1 / 2 million", "1 / 2 million"),  # half of one, not of two
        ("a million", "a million"),
        ("3 thousandths", "3 thousandths"),
    ],
)
def test_magnitudes_are_written_out(text, digits):
    assert written_out(text) == digits
