"""Randomness is a pure function of its keys."""

from __future__ import annotations

import torch

from fedsparse.randomness import generator, integer, torch_generator


def test_same_keys_same_numbers() -> None:
    assert generator(1, 2, "a", 3).random(4).tolist() == generator(1, 2, "a", 3).random(4).tolist()
    assert torch.equal(
        torch.rand(3, generator=torch_generator(1, "x")), torch.rand(3, generator=torch_generator(1, "x"))
    )


def test_every_key_counts() -> None:
    keys = [
        (0,),
        (0, 1),
        (0, "1"),
        (1, 0),
        (0, 1, 0),
        (0, "ab"),
        (0, "a", "b"),
        (2**40,),
        (2**41,),
        (0, 2**33),
        (0, 2**34),
    ]
    assert len({integer(*key) for key in keys}) == len(keys)


def test_the_numbers_do_not_change_between_versions() -> None:
    assert integer(0, 1, "train", 7) == 4393446473062505033
