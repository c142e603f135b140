// Legend of the shape suffixes in tensor names of the trainer: x_TD is [T, D].
//
//   B sequences of a micro-batch    S tokens of a sequence
//   T = B * S tokens of a micro-batch on this rank
//   D hidden size    H query heads    G key/value heads    C head dimension
//   E experts (global)    L experts on this rank    K experts a token    F FFN width of an expert
//   R rows of this rank's experts: one per (token, expert) pair routed here, sorted by expert
//   V vocabulary
//
// "axis" is said of meshes, "dimension" of tensors. Names without a suffix are weights or scalars.
#pragma once
