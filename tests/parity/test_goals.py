"""PyTorch as a peer among the goals on a GPU, tried out on the processor: the cases and shapes are dlgpu's."""

import pytest
import torch

from benchmarks import goals, programs, torch_goals


@pytest.mark.parametrize("part", ["recurrent", "convolution", "mlp", "steps"])
def test_every_case_of_dlgpu_is_measured_in_pytorch(part, monkeypatch):
    monkeypatch.setattr(programs, "ROWS", dict(programs.ROWS))
    monkeypatch.setitem(programs.SHAPES, "rnn", (4, 8))
    peer = "torch" if "torch" in goals.PEERS[part] else "torch-fused"
    found = [f["case"] for f in goals.measured(part, peer, "emulator")]
    wanted = {"recurrent": goals.recurrent_cases, "convolution": goals.convolution_cases}.get(part)
    assert found == ([c[0] for c in wanted(True)] if wanted else list(programs.ROWS) if part == "steps" else ["mlp48"])


@pytest.mark.parametrize("layer", [goals.CNN, ("odd", 9, 3, 5, 7, 2, "same"), ("even", 8, 3, 5, 3, 2, "same")])
def test_images_come_out_of_a_convolution_as_large_as_dlgpus(layer, monkeypatch):
    from dlgpu.backend.windows import output_size, padding_pairs

    _, size, channels, filters, side, stride, padding = layer
    sizes, windows, strides = (size, size), (side, side), (stride, stride)
    pads = padding_pairs(padding, sizes, windows, strides, (1, 1))
    outputs = []
    monkeypatch.setattr(goals, "convolution_cases", lambda small: [("a", 2, "tf32", layer)])
    monkeypatch.setattr(torch_goals, "milliseconds", lambda call: outputs.append(call()) or 1.0)
    list(torch_goals.convolution(True))
    assert outputs[0].shape == (2, filters, *output_size(sizes, windows, strides, pads, (1, 1)))
    assert outputs[0].is_contiguous(memory_format=torch.channels_last)
    assert [g.shape[1] for g in outputs[1]] == [channels, channels]
