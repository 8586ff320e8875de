"""Which common prefix of prompts is computed once."""

from pipeline.model.forward.prefixes import common_prefixes

A, B = [1, 2, 3, 4, 5, 6, 7, 8], [9, 9, 9, 9, 9, 9]


def test_the_prefix_of_all_prompts_is_shared():
    prefixes = common_prefixes([[*A, 20, 21], [*A, 30], [*A, 20, 22, 23]], [0, 0, 0])
    assert (prefixes.length, sorted(map(sorted, prefixes.groups))) == (8, [[0, 1, 2]])


def test_prompts_of_two_kinds_have_two_prefixes_of_one_length():
    prefixes = common_prefixes([[*A, 1], [*B, 2], [*A, 3], [*B, 4]], [0, 0, 0, 0])
    assert (prefixes.length, sorted(map(sorted, prefixes.groups))) == (6, [[0, 2], [1, 3]])


def test_the_length_that_saves_most_is_chosen():
    # all share 4 tokens (3 × 4 saved); two share 8 (1 × 8 saved)
    prefixes = common_prefixes(
        [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 7, 8, 7], [1, 2, 3, 4, 8, 8], [1, 2, 3, 4, 7]], [0] * 4
    )
    assert (prefixes.length, prefixes.groups[0]) == (4, [1, 0, 3, 2])


def test_rows_that_are_not_alike_share_nothing():
    assert sorted(common_prefixes([A, A, A], [0, 1, 0], keep=2).groups) == [[0, 2], [1]]
    assert common_prefixes([A, A], [0, 1]).length == 0
    assert common_prefixes([A, A], None).length == 0


def test_every_prompt_keeps_the_tokens_it_must():
    assert common_prefixes([A, A], [0, 0], keep=3).length == 5
    assert common_prefixes([A, A], [0, 0], keep=5).length == 0  # 3 tokens are not worth a pass
    assert common_prefixes([], []).length == 0
