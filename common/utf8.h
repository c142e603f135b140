// UTF-8 at the edges: bytes of programs and files, before they become strings of messages or pages.
//
// A protobuf string with other bytes cannot be read by its receiver, who then drops the whole
// message and, in a stream, the connection.
#pragma once

#include <cstddef>
#include <string>

namespace switchyard {

inline constexpr char kUtf8Replacement[] = "\xEF\xBF\xBD";  // U+FFFD

// Bytes of the UTF-8 sequence that begins at `i`, 0 when there is none: overlong forms, surrogates
// and sequences cut short are none.
size_t Utf8SequenceLength(const std::string& text, size_t i);
// `text` with every byte that belongs to no sequence replaced by U+FFFD.
std::string ToUtf8(const std::string& text);
// The first `bytes` bytes of `text`, which is UTF-8, or a few less: no sequence is cut.
std::string Utf8Prefix(const std::string& text, size_t bytes);

}  // namespace switchyard
