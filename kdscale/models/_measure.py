"""What a network costs, and a memory format that it must not be given."""

from __future__ import annotations

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kdscale.models._linear_layer import linear_layer
from kdscale.models._network import Network, dummy_images, evaluating
from kdscale.models._simkd import SimKD


def count_parameters(network: nn.Module) -> int:
    """Returns the number of parameters, shared ones counted once, buffers not.

    Of a `SimKD` student: with the teacher's classifier, without the one that it replaces.
    """
    count = sum(parameter.numel() for parameter in network.parameters())
    if isinstance(network, SimKD):
        count += network.weight.numel() + network.bias.numel()
        if network.body.shapes.linear:
            replaced = linear_layer(network.body).parameters()
            count -= sum(parameter.numel() for parameter in replaced)
    return count


def multiply_accumulates(network: Network, image_size: int) -> int:
    """Returns the multiply-accumulates of one image's forward pass to the logits.

    Counted are convolutions and matrix products (linear layers, attention); normalisation,
    activation, pooling and biases are not, as in the literature.

    Args:
        network: The network; its state and modes stay as they are.
        image_size: Height and width of the image in pixels.
    """
    with evaluating(network), FlopCounterMode(display=False) as counter:
        network(dummy_images(network, image_size))
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-accumulate as 2 FLOPs


def refuse_channels_last(network: nn.Module) -> str:
    """Returns why ``network`` must not train in channels_last where it lies, or ``""``.

    In torch 2.15 on CPUs without AVX-512 the backward pass of a strided 1x1 convolution with
    fewer than 8 input channels writes outside its buffer in this format. Seen at strides 2 and 3
    and up to 7 channels; grouped convolutions, larger kernels and GPUs are not affected.

    Args:
        network: The network, already on its device.
    """
    for name, part in network.named_modules():
        if (
            isinstance(part, nn.Conv2d)
            and part.kernel_size == (1, 1)
            and max(part.stride) > 1
            and part.groups == 1
            and part.in_channels < 8
            and part.weight.device.type == "cpu"
        ):
            return (
                f"on CPU, channels_last corrupts memory in the backward pass of strided 1x1 "
                f"convolutions with fewer than 8 input channels, and layer {name} has "
                f"{part.in_channels}"
            )
    return ""
