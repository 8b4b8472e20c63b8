import pytest
import torch

from failscape.training.precision import autocast


@pytest.mark.parametrize(("wanted", "there", "dtype"), [
    (True, True, torch.bfloat16),
    (True, False, torch.float32),
    (False, True, torch.float32),
])  # fmt: skip
def test_bfloat16_is_taken_where_it_is_wanted_and_there(
    wanted: bool, there: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("failscape.training.precision.computes_bf16", lambda device: there)
    with autocast("cpu", bf16=wanted):
        assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == dtype
