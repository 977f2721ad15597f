"""What a receiver's knowledge saves: a mask that it holds, a mask that changed little, the weights it sent out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fedsparse import bench, codec
from fedsparse.models.cnn import CNN
from fedsparse.payload import Bits, Payload, Schema, Spec
from fedsparse.randomness import generator, integer
from fedsparse.train import optimizer, steps, task_loss

MOVED, DENSITY = 0.05, 0.1
TENSORS = 64
SAMPLES, BATCH, LR, MOMENTUM = 3000, 64, 0.01, 0.9  # 47 steps a client and round
NETS = {"CNN of 106,000": CNN(), "CNN of 1.7M": CNN(channels=(32, 64), hidden=512)}


def known_mask() -> dict[str, float]:
    """What a mask costs whose receiver holds it: bytes beyond those of the kept values sent as dense tensors."""
    rng = np.random.default_rng(2)
    weights = {f"layer{i}": rng.standard_normal((512, 32), np.float32) for i in range(TENSORS)}
    masks = {name: rng.random(array.shape) < DENSITY for name, array in weights.items()}
    kept = {name: array[masks[name]] for name, array in weights.items()}
    held = {name: Bits(mask) for name, mask in masks.items()}
    masked = codec.encode(Payload(weights, masks), known=held, schema=_schema(weights))
    return {"known": (len(masked) - len(codec.encode(Payload(kept), schema=_schema(kept)))) / TENSORS}


def mask_difference(elements: int) -> dict[str, float]:
    """Bytes of a mask of which 5 % moved: fresh, to a receiver that holds the old one, and their bounds."""
    rng = np.random.default_rng(3)
    kept = round(DENSITY * elements)
    moved = round(MOVED * kept)
    order = rng.permutation(elements)
    old, new = np.zeros(elements, np.bool_), np.zeros(elements, np.bool_)
    old[order[:kept]] = True
    new[order[moved : kept + moved]] = True
    schema = Schema({"w": Spec("float32", (elements,))}, frozenset({"w"}), partial=True)
    payload, held = Payload(masks={"w": new}), {"w": Bits(old)}
    sent = codec.encode(payload, schema=schema, known=held)
    again = codec.decode(sent, schema, len(sent), known=held).masks["w"]
    if not np.array_equal(again.dense(), new):
        raise ValueError("the mask that came back is another one")
    bound = (bench.choices(kept, moved) + bench.choices(elements - kept, moved)) / 8
    return {"fresh": len(codec.encode(payload, schema=schema)), "difference": len(sent), "bound": bound}


def given_reference(which: str, rounds: int) -> dict[str, Any]:
    """Bytes of what two clients send in rounds of FedAvg on Fashion-MNIST: plain, and given what they were sent."""
    from fedsparse.datasets.fashion_mnist import FashionMNIST

    data = FashionMNIST().load()
    torch.manual_seed(integer(0, "reference"))
    net = NETS[which].build(data.shape, data.outputs)
    plain, given = [], []
    for number in range(rounds):
        start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        schema = _schema({name: tensor.numpy() for name, tensor in start.items()})
        total = {name: torch.zeros_like(tensor) for name, tensor in start.items()}
        for client in range(2):
            net.load_state_dict(start)
            rows = torch.from_numpy(generator(0, "rows", client).permutation(len(data.x))[:SAMPLES])
            rows = rows[torch.from_numpy(generator(0, "order", number, client).permutation(SAMPLES))]
            batches = ((data.x[part], data.y[part]) for part in rows.split(BATCH))
            for _ in steps(net, batches, optimizer(net, "sgd", LR, MOMENTUM, 0.0), loss=task_loss(data.task)):
                pass
            payload = Payload({name: tensor.numpy() for name, tensor in net.state_dict().items()})
            plain.append(len(codec.encode(payload, schema=schema)))
            sent = codec.encode(payload, schema=schema, reference=start)
            _check(payload, codec.decode(sent, schema, len(sent), reference=start))
            given.append(len(sent))
            for name, tensor in net.state_dict().items():
                total[name] += tensor / 2
        net.load_state_dict(total)
    return {"net": which, "plain": plain, "given": given}


def _check(sent: Payload, received: Payload) -> None:
    for name, array in sent.weights.items():
        if np.asarray(array).tobytes() != np.asarray(received.weights[name]).tobytes():
            raise ValueError(f"{name} is not what was sent")


def _schema(arrays: dict[str, np.ndarray]) -> Schema:
    return Schema({n: Spec(str(a.dtype), a.shape) for n, a in arrays.items()}, frozenset(arrays))


def table(results: list[dict[str, Any]]) -> str:
    """Markdown, of any of the three above."""
    rows = []
    for found in results:
        if "known" in found:
            rows.append(["bytes of a known mask, a tensor", bench.verdict(found["known"], 16)])
        elif "fresh" in found:
            fresh, less = found["fresh"], found["difference"]
            rows.append(["bytes of a fresh mask of density 10 %", f"{fresh:,}"])
            rows.append(
                ["the same, given one of which 5 % moved", f"{less:,} ({less / found['bound']:.3f} of its bound)"]
            )
            rows.append(["fresh / difference", bench.verdict(fresh / less, 6, least=True, slack=1)])
        else:
            shares = [given / plain for given, plain in zip(found["given"], found["plain"], strict=True)]
            what = f"weights given the round's reference / plain, {found['net']}"
            rows.append([what, bench.verdict(sum(shares) / len(shares), 0.82)])
            rows.append(
                [f"the same, from the first to the last of {len(shares)}", f"{shares[0]:.3f} to {shares[-1]:.3f}"]
            )
    return bench.markdown(["what", "measured"], rows)
