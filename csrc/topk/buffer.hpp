// Memory for what a scan reads: aligned to cache lines, in large pages where it is large.
#pragma once

#include <cstddef>
#include <memory>

namespace deepssim {

struct FreeBuffer {
    void operator()(std::byte* memory) const;
};
using Buffer = std::unique_ptr<std::byte[], FreeBuffer>;

// `bytes` of memory, not cleared. Rows of a base lie far apart: in pages of 4 KB each of them costs a walk through
// the page table, so buffers of many megabytes ask for pages of 2 MB.
Buffer make_buffer(std::size_t bytes);

// What make_buffer takes.
std::size_t buffer_bytes(std::size_t bytes);

}  // namespace deepssim
