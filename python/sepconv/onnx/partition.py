"""Which nodes become plans of the engine: connected regions that the layer list can say, each as large as it gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sepconv.errors import SepconvError
from sepconv.graph import (
    AveragePool2d,
    ChannelShuffle,
    ChannelSlice,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    FullyConnected,
    Input,
    Layer,
    MaxPool2d,
    array_shape,
    infer_shapes,
)
from sepconv.onnx.ir import Graph, Node
from sepconv.onnx.lowering import Lowering, NotInPlanError, layer_shape

# Channels that plans pick out, join and shuffle, in all: of each they note, several times, where it comes from.
MOST_MOVED = 1 << 20


def _is_work(layer: Layer) -> bool:
    """Whether a layer alone is worth the change of layout on a region's way in and out."""
    if isinstance(layer, DepthwiseConv2d):
        return array_shape(layer.weight)[:2] != (1, 1)
    return isinstance(layer, Conv2d | FullyConnected | AveragePool2d | MaxPool2d)


@dataclass(eq=False)
class Region:
    """Nodes, in order, that one plan runs; what it reads from and gives to the rest."""

    nodes: list[Node]
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


Item = Node | Region


def partition(graph: Graph) -> tuple[list[Item], dict[str, str]]:
    """The graph's nodes and regions of them, in an order in which they can run; for each other node, why it is in none.

    Shapes must have been inferred: a region's are all known.
    """
    reasons: dict[str, str] = {}
    able: set[int] = set()
    moved = 0
    for node in graph.nodes:
        moves = _moved_channels(graph, node)
        if isinstance(moves, int) and moved + moves > MOST_MOVED:
            moves = f"more than {MOST_MOVED} channels picked out, joined and shuffled"
        if isinstance(moves, str):
            reasons[node.name] = moves
        else:
            able.add(id(node))
            moved += moves
    regions = []
    counts = graph.use_counts()
    for nodes in _components(graph, able):
        region = Region(nodes)
        if _is_worth_it(graph, region, counts):
            regions.append(region)
        else:
            reasons.update({node.name: "no convolution or pooling around it" for node in nodes})
    return _ordered(graph, regions), reasons


def lower(graph: Graph, region: Region) -> Lowering:
    """The region's layers. Raises NotInPlanError or ValueError where together they are not what each alone was."""
    lowering = Lowering(graph)
    for node in region.nodes:
        lowering.add(node)
    return lowering


def _moved_channels(graph: Graph, node: Node) -> int | str:
    """How many channels a node alone picks out, joins or shuffles; or why it cannot be part of a plan."""
    lowering = Lowering(graph)
    try:
        lowering.add(node)
        expected = {name: layer_shape(lowering.shape(name)) for name in node.outputs if name}
        shapes = infer_shapes(lowering.layers)
    except (NotInPlanError, ValueError, TypeError, SepconvError) as error:
        return str(error)
    for name, shape in expected.items():
        found = shapes[lowering.layer(name)]
        if found != shape:
            return f"shape {shape} is declared, {found} computed"
    moving = [layer for layer in lowering.layers if isinstance(layer, ChannelShuffle | ChannelSlice | Concat)]
    return sum(shapes[layer.name][2] for layer in moving)


def _components(graph: Graph, able: set[int]) -> list[list[Node]]:
    """Connected groups of able nodes between which no path leads out and in again."""
    stage: dict[int, int] = {}
    producers = graph.producers()
    for node in graph.nodes:
        level = 0
        for name in node.reads():
            before = producers.get(name)
            if before is not None:
                same = (id(before) in able) == (id(node) in able)
                level = max(level, stage[id(before)] + (0 if same else 1))
        stage[id(node)] = level
    parent = {key: key for key in able}

    def root(key: int) -> int:
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for node in graph.nodes:
        if id(node) not in able:
            continue
        for name in node.reads():
            before = producers.get(name)
            if before is not None and id(before) in able and stage[id(before)] == stage[id(node)]:
                parent[root(id(node))] = root(id(before))
    groups: dict[int, list[Node]] = {}
    for node in graph.nodes:
        if id(node) in able:
            groups.setdefault(root(id(node)), []).append(node)
    return list(groups.values())


def _is_worth_it(graph: Graph, region: Region, counts: Mapping[str, int]) -> bool:
    """``counts``: how often each value is read. Fills the region's inputs and outputs."""
    try:
        lowering = lower(graph, region)
        infer_shapes(lowering.layers)
    except (NotInPlanError, ValueError):
        return False
    region.inputs = lowering.inputs
    inside = Counter(name for node in region.nodes for name in node.reads())
    written = {name for node in region.nodes for name in node.outputs if name}
    region.outputs = sorted(name for name in written if counts.get(name, 0) > inside[name])
    aliases = {layer.name for layer in lowering.layers if isinstance(layer, Input)}
    if any(lowering.layer(name) in aliases for name in region.outputs):
        return False  # a value that only goes through
    return any(map(_is_work, lowering.layers))


def _ordered(graph: Graph, regions: Sequence[Region]) -> list[Item]:
    """Regions in the place of their nodes, each item after what it reads."""
    home: dict[int, Item] = {id(node): region for region in regions for node in region.nodes}
    producers = graph.producers()
    done: list[Item] = []
    seen: set[int] = set()

    def visit(item: Item) -> None:
        stack: list[tuple[Item, list[Item]]] = [(item, _needs(item))]
        while stack:
            current, needs = stack[-1]
            if id(current) in seen:
                stack.pop()
            elif needs:
                needed = needs.pop()
                if id(needed) not in seen:
                    stack.append((needed, _needs(needed)))
            else:
                seen.add(id(current))
                done.append(current)
                stack.pop()

    def _needs(item: Item) -> list[Item]:
        names = item.inputs if isinstance(item, Region) else list(item.reads())
        makers = [producers[name] for name in reversed(names) if name in producers]
        return [home.get(id(maker), maker) for maker in makers]

    for node in graph.nodes:
        visit(home.get(id(node), node))
    return done
