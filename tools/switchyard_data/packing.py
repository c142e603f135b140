"""Which document goes into which sequence."""

import numpy as np

WINDOW = 1024  # sequences open at once


class FirstFit:
    """A segment tree over the room of the open sequences: the first slot with enough room in O(log WINDOW)."""

    def __init__(self, slots):
        self.slots = slots
        self.room = [0] * (2 * slots)

    def set(self, slot, room):
        node = slot + self.slots
        self.room[node] = room
        while node > 1:
            node //= 2
            self.room[node] = max(self.room[2 * node], self.room[2 * node + 1])

    def find(self, length):
        """First slot with room for `length`, or -1."""
        if self.room[1] < length:
            return -1
        node = 1
        while node < self.slots:
            node *= 2
            if self.room[node] < length:
                node += 1
        return node - self.slots


def pack(lengths, sequence_length, packing=True):
    """Sequence of each document, numbered as they are opened, and the number of sequences.

    A document goes into the first open sequence that has room; when none has, a new sequence takes the place of
    the one opened longest ago of WINDOW. Depends on nothing but the lengths.
    """
    if not packing:
        return np.arange(len(lengths), dtype=np.int64), len(lengths)
    sequence_of = np.empty(len(lengths), dtype=np.int64)
    tree = FirstFit(WINDOW)
    number = [0] * WINDOW  # sequence in each slot
    opened = 0
    for i, length in enumerate(lengths):
        slot = tree.find(length)
        if slot < 0:
            slot = opened % WINDOW
            number[slot] = opened
            opened += 1
            tree.set(slot, sequence_length)
        sequence_of[i] = number[slot]
        tree.set(slot, tree.room[slot + tree.slots] - length)
    return sequence_of, opened
