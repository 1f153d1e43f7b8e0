"""Think blocks of the families of reasoning models are left out before a text is judged."""

from __future__ import annotations

import pytest

from elrea.evaluation.think import may_open, opens, without_thinking


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>\nTwo and two.\n</think>\n\n4", "4"),
        ("<thinking>A? B?</thinking>C", "C"),
        ("<THINK>a</think> B", "B"),
        ("<|START_THINKING|>A<|END_THINKING|> B", "B"),
        ("<|START_THINKING|>A<|END_THINKING|><|START_RESPONSE|>B<|END_RESPONSE|>", "B"),
        ("<think>A</think>\n<answer>\nB\n</answer>", "B"),
        ("<answer>B</answer>", "B"),
        (" <ANSWER> B\nC </answer>\n", "B\nC"),
        ("<answer>B", "<answer>B"),
        ("<think>A</think><answer>B</answer> C", "<answer>B</answer> C"),
        ("<think>A</think>C <answer>B</answer>", "C <answer>B</answer>"),
        ("<think>A</think> <answer>B</answer> <answer>C</answer>", "<answer>B</answer> <answer>C</answer>"),
        ("<think>A</think><answer>B<|END_RESPONSE|>", "<answer>B<|END_RESPONSE|>"),
        ("<answer></answer>", ""),
        ("<|begin_of_thought|>A<|end_of_thought|>B", "B"),
        ("<seed:think>A</seed:think>B", "B"),
        ("[THINK]A[/THINK]B", "B"),
        ("◁think▷A◁/think▷B", "B"),
        ("<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>final<|message|>B", "B"),
        ("Well: <think>A</think> B <think>C</think> D", "Well:  B  D"),
        ("<think>I write <think> here, or <thinking>. </thinking> </think>B", "B"),
        ("A, as the prompt opened it\n</think>\n\nB", "B"),
        ("A </think> B </think> C", "C"),
        ("<think></think>", ""),
        ("<think>\nA and then no more tok", None),
        ("<think>A</think> B <think> C", None),
        ("<think>A</thinking> B", None),
        ("<|channel|>analysis<|message|>A and", None),
        ("Well:\n <think>A and no more tok", None),
        ("\n\t<think> A", None),
        ("<think>A</think> <thinking> B", None),
        # Words about markers.
        ("The tag `<think>` opens a thought. 4", "The tag `<think>` opens a thought. 4"),
        ("`<think>` opens a thought. 4", "`<think>` opens a thought. 4"),
        ("Between `<think>` and `</think>` it thinks. 4", "Between `<think>` and `</think>` it thinks. 4"),
        ('Write "</think>" then. 4', 'Write "</think>" then. 4'),
        ("I think <thoughts> matter: 5", "I think <thoughts> matter: 5"),
        ("<think>A</think>It reads `<think>`: 4", "It reads `<think>`: 4"),
        ("I have <thoughts> here </think> B", "B"),
        # No blocks: not even white space changes.
        (" The answer is B. ", " The answer is B. "),
        ("the sun <|end|>", "the sun <|end|>"),
        ("I think <b>so</b>", "I think <b>so</b>"),
        ("", ""),
    ],
)  # fmt: skip
def test_blocks_are_left_out(text: str, rest: str | None) -> None:
    assert without_thinking(text) == rest


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("A\n</think>\n\nB", "B"),
        ("<think>A</think>B", "B"),  # a model that opens the block again
        ("A</thinking>B", "B"),
        ("A, and no more tok", None),
        ("", None),
    ],
)
def test_a_prompt_that_has_opened_the_block(text: str, rest: str | None) -> None:
    assert without_thinking(text, opened=True) == rest


def test_which_prompts_open_a_block() -> None:
    assert opens("<|im_start|>assistant\n<think>\n") and opens("Q<|START_THINKING|>")
    assert not opens("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not opens("What does <think> mean?\n<|im_start|>assistant\n")
    assert may_open("{{ '<think>\\n' }}") and not may_open("{{ bos_token }} I think so")
